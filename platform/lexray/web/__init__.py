"""HTTP for every client of ours: retries, rate limits, a cache on disk and the Table Access Protocol."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["Cache"],
        "retry": ["OutOfRetries", "RateLimiter", "Retrier", "RetryPolicy", "Retryable", "retry_after"],
        "tap": ["NoTable", "QueryRefused", "Tap", "quoted"],
    },
)
