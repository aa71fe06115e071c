"""Configuration keys as options of a command: ``--sources 600`` says what ``--set sources=600`` says."""

import difflib
from collections.abc import Sequence

from lexray.errors import ConfigError
from lexray.runtime.config import describe
from lexray.runtime.job import C, Job

#: Options that every job's command has beside its keys.
COMMON = ("--config", "--set", "--out", "--json", "--keys", "--help")


def split_options(job: Job[C], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command's arguments into inputs and overrides.

    Parameters
    ----------
    job : Job
        Its configuration's keys, nested ones with dots, are the options; ``-`` and ``_`` are the same in them.
    arguments : sequence of str
        As typed, without the options in `COMMON`: ``KEY VALUE``, ``KEY=VALUE``, for true or false also ``--key`` and
        ``--no-key``, and for a key of several numbers all of them, ``KEY A B C``, which may be negative.

    Returns
    -------
    inputs : list of str
        What is no option.
    overrides : list of str
        ``key=value``, for `config.read_yaml`.

    Raises
    ------
    ConfigError
        If an option is unknown, naming the nearest valid one, or lacks its value.
    """
    kinds = {key: kind for key, kind, _, _ in describe(job.config)}
    inputs: list[str] = []
    overrides: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            inputs.append(word)
            continue
        option, equals, value = word.partition("=")
        key = option.removeprefix("--").replace("-", "_")
        negated = key.removeprefix("no_")
        if key not in kinds and negated != key and kinds.get(negated) == "bool" and not equals:
            overrides.append(f"{negated}=false")
            continue
        if key not in kinds or not option.startswith("--"):
            raise ConfigError(f"lexray {job.name}: {_unknown(option, list(kinds))}")
        if not equals and kinds[key] == "bool":
            value = left.pop(0) if left and left[0].lower() in ("true", "false") else "true"
        elif not equals:
            n = _words(kinds[key], left)
            if len(left) < n or left[0].startswith("--"):
                raise ConfigError(f"lexray {job.name}: {option} needs {_values(n)} ({kinds[key]})")
            value, left = " ".join(left[:n]), left[n:]
        overrides.append(f"{key}={value}")
    return inputs, overrides


def _words(kind: str, left: Sequence[str]) -> int:
    """How many words a key's value is: three for ``tuple[float, float, float]``, unless the first holds them all."""
    if not kind.startswith("tuple[") or (left and len(left[0].replace(",", " ").split()) > 1):
        return 1
    return kind.partition("]")[0].count(",") + 1


def _values(n: int) -> str:
    return "a value" if n == 1 else f"{n} values"


def _unknown(option: str, keys: list[str]) -> str:
    valid = [*COMMON, *(f"--{key.replace('_', '-')}" for key in keys)]
    nearest = difflib.get_close_matches(option, valid, n=1, cutoff=0.0)
    return f"unknown option {option}" + (f", did you mean {nearest[0]}?" if nearest else "")
