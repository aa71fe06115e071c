"""An archive of simulated sources with their event files, papers, labels and true rates."""
