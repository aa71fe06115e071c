"""Engines of language models and sentence models. They know no prompt."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "chat_model": ["ChatTokenizer", "LanguageModel", "Messages", "describe_language_model"],
        "cost": ["cost_per_1000"],
        "hub": ["locate"],
        "openai": ["Endpoint", "EndpointClient"],
        "sentence_encoder": [
            "TextEncoder",
            "TextModel",
            "TextTokenizer",
            "Vectors",
            "describe_text_model",
            "unit_vectors",
        ],
        "vllm": [
            "VllmSettings",
            "build",
            "one_line_errors",
            "require_vllm",
            "resolve_device",
            "silence_ray_data",
            "start_notice",
            "version",
        ],
    },
)
