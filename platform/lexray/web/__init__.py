"""HTTP for every client of ours: retries, a pace, a cache on disk and the Table Access Protocol."""
