"""What papers say of a source, made short and turned into vectors."""
