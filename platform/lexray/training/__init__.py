"""From tables to tensors: splits, pairs, parts of event tables, and configurations of trainings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "alignment": ["AlignmentTraining"],
        "autodecoder": ["AutodecoderTraining"],
        "autodecoder_config": ["AutodecoderConfig", "GridConfig", "ModelType", "ResnetConfig", "SplitnetConfig"],
        "event_parts": ["EventsTable", "TrainingPlan", "plan_training", "sample"],
        "heads": ["fit_heads_to_tables"],
        "pairs": ["PairedTables", "read_pairs"],
        "search": ["AlignmentSearch"],
        "search_space": ["Domain", "parse_space"],
        "splits": ["read_splits", "sources_of", "split"],
        "trials": ["Trial", "TrialLog"],
    },
)
