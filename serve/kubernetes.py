"""The application for KubeRay: a RayService's ``import_path`` names `build`, its ``args`` are keys of `ServeConfig`.

On Kubernetes the operator starts Serve; everywhere else `lexray serve` does.
"""

from ray import serve

from lexray.serve.config import ServeConfig, api_keys
from lexray.serve.service import application


def build(config: ServeConfig) -> serve.Application:
    """The application of a release.

    Raises
    ------
    ConfigError
        If the file of API keys cannot be read or holds none.
    """
    return application(config, api_keys(config))
