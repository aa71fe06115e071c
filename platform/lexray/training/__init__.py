"""From tables to tensors: splits, pairs, parts of event tables, and configurations of trainings."""
