"""`resnet`: PPAD as published (Song et al. 2025, arXiv:2502.01627)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decoder": ["ResnetDecoder"],
        "inference": ["ResnetReconstructor"],
        "loss": ["ResnetPenaltyWeights"],
        "training": ["ResnetSettings"],
    },
)
