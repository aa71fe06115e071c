"""Texts that people and programs rely on, kept as files: a change of one is seen in the diff."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare a text with its golden file; with ``UPDATE_GOLDEN=1`` in the environment, write the file."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, f"{path} differs; if that is meant, run with UPDATE_GOLDEN=1"
