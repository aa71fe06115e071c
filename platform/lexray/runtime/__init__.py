"""What every job shares: configuration, the Ray session, tracking, progress and maps over a table's parts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": [
            "BaseConfig",
            "JobConfig",
            "RayConfig",
            "TrackingConfig",
            "describe",
            "former_keys",
            "parse",
            "read_yaml",
        ],
        "environment": ["capture_stderr", "set_defaults"],
        "job": ["Job", "JobContext", "JobReport", "JobResult", "execute", "is_up_to_date"],
        "map_parts": ["MappedRows", "OutputTable", "PartFunction", "results_of_parts"],
        "peak_memory": ["PeakMemory"],
        "pipeline": ["PipelineConfig", "PipelineReport", "plan_steps"],
        "progress": ["Progress", "ProgressTask"],
        "ray_internals": ["RAY_VERSION", "find_user_error"],
        "ray_session": ["relay_progress", "session"],
        "tracking": ["MlflowRun", "reopen", "run", "start_run"],
    },
)
