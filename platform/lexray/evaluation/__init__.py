"""What the models are worth: held-out gain, retrieval, probes, heads with their calibration, and the report."""
