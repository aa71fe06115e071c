"""Rules on strings of astronomical prose. No model and no table."""
