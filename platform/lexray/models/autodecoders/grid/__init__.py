"""`grid`: a latent for each detection, decoded to log-rates on a grid of knots in time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decoder": ["GridDecoder"],
        "inference": ["GridReconstructor"],
        "loss": ["GridPenaltyWeights"],
        "training": ["GridSettings"],
    },
)
