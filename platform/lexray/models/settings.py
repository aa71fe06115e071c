"""Fields of settings: what the configuration knows of them stands beside their defaults."""

from dataclasses import field
from typing import TypeVar

T = TypeVar("T")


def setting(default: T, description: str, **bounds: float) -> T:
    """A field of settings that users may set.

    Parameters
    ----------
    default : T
    description : str
        One line for users.
    **bounds : float
        Of its values: `ge`, `gt`, `le`, `lt`.
    """
    described: T = field(default=default, metadata={"description": description, **bounds})
    return described
