"""Lexray aligns X-ray event lists with what the astronomical literature says of their sources."""

from lexray import quiet

quiet.set_defaults()

__version__ = "0.1.0"
