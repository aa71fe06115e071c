"""A release: the immutable folder that goes into service, and its search index."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "aligned": ["AlignedModel", "load_aligned"],
        "assemble": ["ReleaseParts"],
        "index": ["Hit", "SearchIndex", "index_rows"],
        "manifest": [
            "Release",
            "ReleaseManifest",
            "SentenceModelRef",
            "check_overwrite",
            "create_draft",
            "publish",
            "seal",
        ],
    },
)
