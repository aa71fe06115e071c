"""Lexray aligns X-ray event lists with what the astronomical literature says of their sources."""

import importlib
from typing import TYPE_CHECKING, Any

from lexray.runtime import environment
from lexray.version import __version__ as __version__

if TYPE_CHECKING:
    from lexray.events.reader import read_events as read_events

environment.set_defaults()

#: Public names and the modules they live in, imported when first used: `import lexray` stays light, without torch.
_EXPORTS = {
    "read_events": "lexray.events.reader",
    "load_autodecoder": "lexray.inference.autodecoder",
    "load_aligned": "lexray.release.aligned",
    "Client": "lexray.client",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lexray' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
