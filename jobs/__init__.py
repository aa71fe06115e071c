"""The jobs of the pipeline. Each module is one command of `lexray`; `registry` names them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"registry": ["JOBS", "REGISTRY", "load_job"]}
)
