"""Two towers into one space, their contrastive loss, and heads on the vectors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "heads": ["Heads", "fit_heads"],
        "pairs": ["Pairs"],
        "towers": ["Towers"],
        "trainer": ["AlignmentSettings", "AlignmentTrainer"],
    },
)
