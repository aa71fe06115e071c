"""Measures of reconstruction, retrieval and regression, each with its baselines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baselines": ["bayesian_blocks", "constant_rate"],
        "cells": ["as_rate_model"],
        "count_bins": ["count_bin_of"],
        "heldout": ["DetectionScore", "PiecewiseRate", "RateModel", "gain", "gain_interval", "score_models"],
        "inputs": ["SourceMetadata", "read_labels", "read_summaries"],
        "intervals": ["RateInterval", "coverage", "rate_intervals"],
        "kernel": ["GaussianKernel"],
        "retrieval": ["ranks", "recall_at"],
        "scoring": ["reconstruct", "reconstructed_rates", "score_sources"],
        "tables": ["read_detections"],
        "total_variation": ["TotalVariationFit"],
    },
)
