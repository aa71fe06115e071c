"""`splitnet`: an encoder–decoder that predicts photons held out from the rest. It needs no fit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "binning": ["exposure_shares", "n_cells"],
        "inference": ["SplitnetReconstructor"],
        "network": ["SplitNet", "log_counts"],
        "training": ["SplitnetSettings"],
    },
)
