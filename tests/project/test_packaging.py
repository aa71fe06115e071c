"""What pyproject.toml and CITATION.cff say of the package: a forgotten folder breaks the wheel and nothing else."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import yaml

from lexray.version import __version__

ROOT = Path(__file__).parents[2]
FOLDERS = {"lexray": ROOT / "platform" / "lexray", "lexray.jobs": ROOT / "jobs", "lexray.serve": ROOT / "serve"}
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages() -> dict[str, Path]:
    return {
        ".".join((name, *init.parent.relative_to(folder).parts)): init.parent
        for name, folder in FOLDERS.items()
        for init in folder.rglob("__init__.py")
    }


def test_every_package_is_listed() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages())


def test_every_file_that_is_no_module_is_package_data() -> None:
    forgotten = []
    for folder in FOLDERS.values():
        for path in folder.rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            name, package = next(
                (name, place) for parent in path.parents for name, place in packages().items() if place == parent
            )
            patterns = SETUPTOOLS["package-data"].get(name, [])
            if not any(fnmatch(str(path.relative_to(package)), pattern) for pattern in patterns):
                forgotten.append(path)
    assert forgotten == []


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"], citation["version"]) == ("1.2.0", "software", __version__)
    assert all(citation[key] for key in ("title", "message", "authors", "license"))
