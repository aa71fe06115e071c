"""What KubeRay imports: a RayService's ``import_path`` names `build`, its ``args`` are the keys of `ServeConfig`.

There the operator starts Serve, in processes of its own; `lexray serve` does it everywhere else.
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
