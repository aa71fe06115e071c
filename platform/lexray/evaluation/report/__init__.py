"""The report's pages: metrics, plots and their captions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "autodecoder": [
            "anomaly_table",
            "detection_features",
            "fit_baselines",
            "measure_detection_properties",
            "rate_intervals_68",
            "rate_models",
            "sample_by_hash",
        ],
        "captions": ["caveats", "count_bin_figure", "gain_figures", "property_figure"],
        "groundedness": ["ungrounded_summaries_table"],
        "metrics": ["EvaluationResults", "gains_by_group", "measure_gain", "measure_properties"],
        "report": ["ReportPage", "lineage", "publish"],
        "sections": ["embedding_section", "light_curve_section", "training_section"],
    },
)
