"""Summaries of the papers on a source, by a language model or by extraction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "extractive": ["Corpus", "ExtractiveSummarizer", "papers_by_source"],
        "extractive_run": ["extract_summaries"],
        "prompts": ["PromptTemplates"],
        "run": [
            "HttpSummaryEngine",
            "SummaryEngine",
            "VllmSummaryEngine",
            "WritingStats",
            "describe_endpoint",
            "write_missing",
        ],
        "statistics": ["summary_statistics"],
        "writer": ["SummaryRequest", "Writer", "WriterSettings"],
    },
)
