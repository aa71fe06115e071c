"""An archive of simulated sources with their event files, papers, labels and true rates."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "archive": ["simulate_archive"],
        "population": ["SimulatedPopulation", "simulate"],
        "source": ["SimulatedSource", "simulate_source"],
    },
)
