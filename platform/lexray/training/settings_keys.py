"""Configuration made from settings: default, bounds and meaning of a key stand once, beside the field."""

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import Field, create_model

from lexray.runtime.config import BaseConfig

C = TypeVar("C", bound=BaseConfig)


def keys_of(settings: type, base: type[C], without: Collection[str] = ()) -> type[C]:
    """A configuration with the keys of `base` and one for each described field of a dataclass.

    Parameters
    ----------
    settings : type
        A dataclass. A field whose default alone is another than its parent's keeps the parent's bounds and meaning.
    base : type
        A configuration.
    without : collection of str
        Fields that get no key.
    """
    types: dict[str, type] = get_type_hints(settings)
    keys: dict[str, Any] = {}
    for field in fields(settings):
        if is_dataclass(types[field.name]):
            nested = keys_of(types[field.name], BaseConfig)
            keys[field.name] = nested, nested()
        elif (described := _described(settings, field.name)) and field.name not in without:
            keys[field.name] = types[field.name], Field(field.default, **described)
    return create_model(f"{settings.__name__}Keys", __base__=base, **keys)


def _described(settings: type, name: str) -> dict[str, Any]:
    parents = (parent.__dict__.get("__dataclass_fields__", {}) for parent in settings.__mro__)
    return next((dict(own[name].metadata) for own in parents if name in own and own[name].metadata), {})
