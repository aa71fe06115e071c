"""Environment variables of our processes, set before Ray, vLLM, MLflow or Transformers are imported.

Telemetry of all of them is off by default; a user who set a variable keeps it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_V2_ENABLED": "1",
    # Ray's own progress bars and ours would share a terminal.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Ray's C++ code warns on the driver's stderr about what Ray Data does to its own actors.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Trials are logged to MLflow; Tune's own CSV, JSON and TensorBoard files would repeat it.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's newer output writes to stdout at every verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
}


def set_defaults(values: Mapping[str, str] = _DEFAULTS) -> None:
    """Set the variables that the user has not set."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def capture_stderr() -> Iterator[None]:
    """Keep back what native code writes to stderr while the block runs, and show it only if the block fails.

    Ray's C++ code writes a line about its log level there at every start.
    """
    sys.stderr.flush()
    original_stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(original_stderr, captured.read())
            raise
        finally:
            os.dup2(original_stderr, 2)
            os.close(original_stderr)
