"""What every job shares: configuration, the Ray session, tracking, progress and maps over a table's parts."""
