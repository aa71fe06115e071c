"""Configuration keys as options of a command: ``--sources 600`` means ``--set sources=600``."""

from collections.abc import Sequence

from lexray.errors import ConfigError, did_you_mean
from lexray.runtime.config import describe, former_keys
from lexray.runtime.job import C, Job

#: Options of every job's command besides its keys.
COMMON_OPTIONS = ("--config", "--set", "--out", "--json", "--keys", "--help")


def split_options(job: Job[C], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command's arguments into inputs and overrides.

    Parameters
    ----------
    job : Job
        Its configuration's keys, nested ones with dots, are the options; ``-`` and ``_`` are the same in them.
    arguments : sequence of str
        As typed, without the options in `COMMON_OPTIONS`: ``KEY VALUE``, ``KEY=VALUE``, for true or false also
        ``--key`` and ``--no-key``, and for a key of several numbers all of them, ``KEY A B C``, which may be negative.

    Returns
    -------
    inputs : list of str
        Arguments that are no options.
    overrides : list of str
        ``key=value``, for `config.read_yaml`.

    Raises
    ------
    ConfigError
        If an option is unknown, naming the nearest valid one, or lacks its value.
    """
    types = {key: kind for key, kind, _, _ in describe(job.config)}
    types |= {former: types[key] for former, key in former_keys(job.config).items() if key in types}
    inputs: list[str] = []
    overrides: list[str] = []
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("-") or word == "-":
            inputs.append(word)
            continue
        option, equals, value = word.partition("=")
        key = option.removeprefix("--").replace("-", "_")
        negated = key.removeprefix("no_")
        if key not in types and negated != key and types.get(negated) == "bool" and not equals:
            overrides.append(f"{negated}=false")
            continue
        if key not in types or not option.startswith("--"):
            valid = [*COMMON_OPTIONS, *(f"--{name.replace('_', '-')}" for name in types)]
            raise ConfigError(f"lexray {job.name}: unknown option '{option}'{did_you_mean(option, valid)}")
        if not equals and types[key] == "bool":
            value = remaining.pop(0) if remaining and remaining[0].lower() in ("true", "false") else "true"
        elif not equals:
            n = _n_words(types[key], remaining)
            if len(remaining) < n or remaining[0].startswith("--"):
                values = "a value" if n == 1 else f"{n} values"
                raise ConfigError(f"lexray {job.name}: {option} needs {values} ({types[key]})")
            value, remaining = " ".join(remaining[:n]), remaining[n:]
        overrides.append(f"{key}={value}")
    return inputs, overrides


def _n_words(kind: str, left: Sequence[str]) -> int:
    """How many words a key's value is: three for ``tuple[float, float, float]``, unless the first holds them all."""
    if not kind.startswith("tuple[") or (left and len(left[0].replace(",", " ").split()) > 1):
        return 1
    return kind.partition("]")[0].count(",") + 1
