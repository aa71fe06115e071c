"""The service: a release behind HTTP, on Ray Serve."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"app": ["create_app"], "config": ["Limits", "ServeConfig"], "engine": ["ServingEngine"]},
)
