"""`splitnet`: an encoder–decoder that predicts photons held out from the rest. It needs no fit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "binning": ["bin_photons", "n_cells"],
        "inference": ["SplitnetReconstructor"],
        "known_rates": ["KnownRateSettings", "KnownRates"],
        "network": ["SplitNet", "log_counts"],
        "training": ["SplitnetSettings"],
    },
)
