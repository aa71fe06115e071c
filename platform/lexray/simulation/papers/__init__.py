"""Papers on simulated sources, in sentences that follow from each source's properties."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "papers": ["SimulatedPaper", "simulate_papers", "simulate_papers_with_topics"],
    },
)
