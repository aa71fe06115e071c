"""The service: a release behind HTTP, on Ray Serve."""
