"""What the repository's layout must keep true."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_pythons_own_platform_wins_from_the_repositorys_root() -> None:
    code = "import platform, sys; platform.system(); print(platform.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not Path(found.strip()).is_relative_to(ROOT / "platform")


def test_the_tour_says_what_it_lacks(tmp_path: Path) -> None:
    tour = [sys.executable, ROOT / "examples" / "tour.py", tmp_path]
    done = subprocess.run(tour, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no release or no event files here" in done.stdout


LIBRARY = ROOT / "platform" / "lexray"


def modules() -> Iterator[Path]:
    for folder in (LIBRARY, ROOT / "jobs", ROOT / "serve"):
        yield from folder.rglob("*.py")


def test_the_top_of_the_library_is_read_in_a_minute() -> None:
    assert len([entry for entry in LIBRARY.iterdir() if entry.name != "__pycache__"]) <= 28


def test_a_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, n in names.items() if n > 1} == set()


@pytest.mark.parametrize(
    "name",
    [
        "lexray.jobs",
        "lexray.serve",
        *sorted(
            ".".join(("lexray", *path.parent.relative_to(LIBRARY).parts)) for path in LIBRARY.glob("*/**/__init__.py")
        ),
    ],
)
def test_every_package_says_what_it_is_for_and_its_public_names_exist(name: str) -> None:
    room = import_module(name)
    assert room.__doc__
    assert room.__all__
    assert all(getattr(room, public) is not None for public in room.__all__)
