"""A look at one detection: its light curve, its spectrum and its header, on a page."""
