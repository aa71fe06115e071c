"""The report's pages: metrics, plots and their captions."""
