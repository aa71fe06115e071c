"""A release: the immutable folder that goes into service, and its search index."""
