"""Texts that people and programs rely on, kept as files: a change of one is seen in the diff."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare a text with its golden file; with ``UPDATE_GOLDEN=1`` in the environment, write the file."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, f"{path} differs; if that is meant, run with UPDATE_GOLDEN=1"


def check_golden_curves(name: str, curves: Mapping[str, Sequence[float]], **tolerance: float) -> None:
    """Compare curves with their golden file as `pytest.approx` does; ``UPDATE_GOLDEN`` as for `check_golden`."""
    path = FOLDER / name
    golden = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        golden |= {key: [round(value, 6) for value in curve] for key, curve in curves.items()}
        path.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    for key, curve in curves.items():
        assert list(curve) == pytest.approx(golden[key], **tolerance), f"{path}: {key}; if meant, UPDATE_GOLDEN=1"
