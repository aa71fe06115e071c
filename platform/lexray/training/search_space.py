"""The space that a search draws configurations from, as YAML says it: ``{dropout: {uniform: [0.0, 0.5]}}``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from lexray.errors import ConfigError, did_you_mean
from lexray.runtime.config import former_keys

#: Kinds of a key's domain, and what each takes.
DISTRIBUTIONS = {
    "uniform": "[low, high], drawn evenly",
    "loguniform": "[low, high] above 0, drawn evenly in the logarithm",
    "randint": "[low, high], whole numbers, both ends included",
    "choice": "[value, value, …], any of these",
}


@dataclass(frozen=True)
class Domain:
    """Where the values of one key are drawn from.

    Attributes
    ----------
    kind : str
        One of `DISTRIBUTIONS`.
    values : tuple
        What the kind takes.
    """

    kind: str
    values: tuple[Any, ...]


def parse_space(
    space: Mapping[str, Any], model: type[BaseModel], base: Mapping[str, Any], keys: Collection[str]
) -> dict[str, Domain]:
    """Validate a search space against the configuration that its draws go into.

    Parameters
    ----------
    space : mapping
        ``{key: {kind: [values]}}``, with the kinds in `DISTRIBUTIONS`.
    model : type
        Configuration of the job that is tuned.
    base : mapping
        Its other keys; valid with `model` by themselves.
    keys : collection of str
        Keys of `model` that may be searched.

    Returns
    -------
    dict of str to Domain

    Raises
    ------
    ConfigError
        One line that names each wrong key and what it takes.
    """
    if not space:
        raise ConfigError("'space' is empty: name at least one key to search, such as {dropout: {uniform: [0.0, 0.5]}}")
    problems: list[str] = []
    domains: dict[str, Domain] = {}
    former = former_keys(model)
    for given_key, given_domain in space.items():
        key = former.get(given_key, given_key)
        problem = _unknown_key(key, keys) or _malformed(given_domain)
        if problem is None:
            kind, values = next(iter(given_domain.items()))
            domains[key] = Domain(kind, tuple(values))
            problem = _out_of_place(domains[key], model, key, base)
        if problem is not None:
            problems.append(f"'space.{key}': {problem}")
    if problems:
        raise ConfigError("; ".join(problems))
    return domains


def _unknown_key(key: str, keys: Collection[str]) -> str | None:
    return None if key in keys else f"not a key that can be searched{did_you_mean(str(key), keys)}"


def _malformed(given_domain: Any) -> str | None:
    """What is wrong with ``{kind: [values]}`` by itself."""
    kinds = "; ".join(f"{kind}: {takes}" for kind, takes in DISTRIBUTIONS.items())
    if not isinstance(given_domain, Mapping) or len(given_domain) != 1:
        return f"takes one of {kinds}, got {given_domain!r}"
    kind, values = next(iter(given_domain.items()))
    if kind not in DISTRIBUTIONS:
        return f"unknown kind '{kind}', it takes one of {kinds}"
    if not isinstance(values, list) or not values:
        return f"{kind} takes {DISTRIBUTIONS[kind]}, got {values!r}"
    if kind == "choice":
        return None
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != 2 or values[0] >= values[1]:
        return f"{kind} takes {DISTRIBUTIONS[kind]}, the lower first, got {values!r}"
    whole = all(isinstance(v, int) for v in values)
    if (kind == "loguniform" and values[0] <= 0) or (kind == "randint" and not whole):
        return f"{kind} takes {DISTRIBUTIONS[kind]}, got {values!r}"
    return None


def _out_of_place(domain: Domain, model: type[BaseModel], key: str, base: Mapping[str, Any]) -> str | None:
    """Why the configuration would not take what is drawn; the ends of an interval stand for all of it."""
    if domain.kind in ("uniform", "loguniform") and model.model_fields[key].annotation is int:
        return f"takes whole numbers: use randint or choice, not {domain.kind}"
    for value in domain.values:
        try:
            model.model_validate({**base, key: value})
        except ValidationError as error:
            # What only the combination with other keys forbids is for the trial that draws it to find.
            own = [item["msg"] for item in error.errors() if item["loc"][:1] == (key,)]
            if own:
                return f"{own[0]}, got {value!r}"
    return None
