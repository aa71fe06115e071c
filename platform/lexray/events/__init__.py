"""X-ray event lists: reading missions' files, good-time intervals, simulation."""
