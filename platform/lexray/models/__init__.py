"""The models, as plain PyTorch: tensors in, tensors out. No Ray, no files, no configuration."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["alignment", "autodecoders"])
