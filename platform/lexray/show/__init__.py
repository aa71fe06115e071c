"""A page on one detection: light curve, spectrum and header."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "page": ["look"],
    },
)
