"""Engines of language models and sentence models. They know no prompt."""
