"""Every command's options and every configuration's keys, as their golden file has them."""

from collections.abc import Iterator
from typing import Any

import typer.main

from golden_files import check_golden
from lexray.cli.app import app
from lexray.jobs.registry import JOBS, load_job
from lexray.runtime.config import describe
from lexray.serve.config import ServeConfig


def commands(group: Any, words: str = "lexray") -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def test_options_and_keys_are_those_of_the_golden_file() -> None:
    lines = []
    for words, command in commands(typer.main.get_command(app)):
        lines += ["", f"{words}: {command.get_short_help_str(200)}"]
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            lines.append(f"  {', '.join(parameter.opts)}  {text}")
    for name in [*JOBS, "serve"]:
        config = ServeConfig if name == "serve" else load_job(name).config
        lines += ["", f"keys of lexray {name}"]
        lines += ["  " + "  ".join(row) for row in describe(config)]
    check_golden("options.txt", "\n".join(lines).lstrip() + "\n")
