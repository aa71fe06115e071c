"""Lexray aligns X-ray event lists with what the astronomical literature says of their sources."""

from typing import TYPE_CHECKING

import lazy_loader

from lexray.runtime import environment
from lexray.version import __version__ as __version__

if TYPE_CHECKING:
    from lexray.client import AsyncClient as AsyncClient
    from lexray.client import Client as Client
    from lexray.client import ServiceError as ServiceError
    from lexray.errors import ConfigError as ConfigError
    from lexray.errors import LexrayError as LexrayError
    from lexray.errors import RefusedInput as RefusedInput
    from lexray.events.eventlist import Bands as Bands
    from lexray.events.eventlist import EventList as EventList
    from lexray.events.eventlist import GoodTimeIntervals as GoodTimeIntervals
    from lexray.events.reader import read_events as read_events
    from lexray.inference.autodecoder import Autodecoder as Autodecoder
    from lexray.inference.autodecoder import load_autodecoder as load_autodecoder
    from lexray.release.aligned import AlignedModel as AlignedModel
    from lexray.release.aligned import load_aligned as load_aligned

environment.set_defaults()

# Imported when first used: `import lexray` stays light, without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "client": ["AsyncClient", "Client", "ServiceError"],
        "errors": ["ConfigError", "LexrayError", "RefusedInput"],
        "events.eventlist": ["Bands", "EventList", "GoodTimeIntervals"],
        "events.reader": ["read_events"],
        "inference.autodecoder": ["Autodecoder", "load_autodecoder"],
        "release.aligned": ["AlignedModel", "load_aligned"],
    },
)
