"""Tables on disk and in object stores: schemas, atomic commits, quarantine and checkpoints. Nothing here knows Ray."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "delta": [
            "Fragment",
            "commit",
            "commit_over",
            "dataset",
            "digest",
            "is_table",
            "part_files",
            "read",
            "read_mark",
            "vacuum",
            "version",
            "write",
            "write_by_source",
            "write_part",
        ],
        "files": [
            "Location",
            "contents",
            "credentials_in",
            "filesystem",
            "find_all",
            "find_files",
            "read_bytes",
            "refuse_credentials",
            "require_local_path",
            "resolve_path",
            "write_whole",
        ],
        "list_columns": [
            "finite_rows",
            "flatten_lists",
            "floats",
            "list_array",
            "list_lengths",
            "stack_lists",
            "vectors",
        ],
        "part_checkpoints": ["FinishedPart", "PartCheckpoints"],
        "provenance": ["read_provenance", "remove_provenance", "write_provenance"],
        "quarantine": ["Refusal", "describe_refusals", "not_finite", "quarantine_of", "write_quarantine"],
        "row_checkpoints": ["MissingRow", "PartProgress", "RowCheckpoints", "RowPlan", "TableVersion"],
        "schemas": ["check", "documented_field", "embeddings", "latents", "text_embeddings"],
    },
)
