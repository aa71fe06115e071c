"""Text vectors: the engines that compute them, and the table that holds them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "engines": ["EmbeddingEngine", "HfEmbeddingEngine", "HttpEmbeddingEngine"],
        "run": ["embed_missing"],
        "store": ["BatchResult", "EmbeddingSpec", "Provenance", "TextColumn"],
        "vllm_engine": ["VllmEmbeddingEngine"],
    },
)
