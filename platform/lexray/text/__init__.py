"""Rules on strings of astronomical prose. No model and no table."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "designations": ["SourceNames"],
        "grounding": ["Evidence", "Grounding", "ground", "ground_in_evidence", "paper_texts", "sentences_about"],
        "labels": ["Confidence", "LabelCategory", "ObjectClass", "SpectralShape", "Variability"],
        "lexicon": ["majority_labels", "mentioned_labels"],
        "masking": ["NameMask"],
        "prompt_injection": ["remove_prompt_injections"],
        "quantities": ["find_quantities", "format_unit"],
        "quantity_names": ["limit_sign", "quantity_name"],
        "sentences": ["normalise_whitespace", "split_sentences"],
        "vocabulary": ["terms"],
    },
)
