"""Papers on simulated sources, in sentences that follow from each source's properties."""
