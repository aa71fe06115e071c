"""What the ingest job alone needs: which files there are, which are new, and one row for each."""
