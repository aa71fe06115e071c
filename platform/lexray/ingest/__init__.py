"""What the ingest job alone needs: which files there are, which are new, and one row for each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "discovery": ["find_event_files"],
        "file_index": ["counts", "ingest_files", "members", "moved", "refusals", "resolve", "rewrite", "to_rewrite"],
        "incremental": ["commit", "file_index_of", "may_differ", "plan", "read_file_index", "reread"],
    },
)
