"""What is used of Ray beyond its public interface: in this one module, as it is in Ray 2.60.0.

A new version of Ray is checked against this file, by hand and by `tests/runtime/test_ray_internals.py`. Each entry
says what would take its place. Ray is not imported here: some of it must be set before Ray is.
"""

import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from lexray.errors import ConfigError, LexrayError

Row = dict[str, Any]
#: Asks an engine one question {tokenized_prompt, sampling_params}; the answer's `__inference_error__` says what failed.
AskEngine = Callable[[Row], Awaitable[Row]]
#: Gives the columns of each row of a batch.
AnswerRows = Callable[[list[Row]], Awaitable[list[Row]]]

#: The version that all of this was seen in; a cluster must have the same.
RAY_VERSION = "2.60.0"

#: Modules of Ray whose loggers print what is no concern of a person who runs a job, with the level from which they may
#: speak. A public switch for these messages would take its place.
LOG_LEVELS = {
    "session": {
        # A note on the token at every start of a local session; it is meant for cluster administrators.
        "ray._private.authentication.authentication_token_setup": logging.ERROR,
        # Warns that the progress bars are off.
        "ray.data._internal.progress": logging.ERROR,
    },
    "job_client": {
        "ray.dashboard.modules.dashboard_sdk": logging.WARNING,
        "ray.dashboard.modules.job.sdk": logging.WARNING,
        "ray._private.runtime_env.packaging": logging.WARNING,
    },
    "llm": {
        # Building a processor calls ray.init again, which is harmless and would say so.
        "ray._private.worker": logging.WARNING,
        "ray.llm": logging.ERROR,
    },
}

#: Variables that put HAProxy in front of Serve. Ray's documentation of them would take this place.
HAPROXY_FLAGS = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")
#: Variable that names HAProxy's binary.
HAPROXY_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"

_TRACEBACK_LINE = re.compile(rf"^{re.escape(LexrayError.__module__)}\.(\w+): (.+)$", flags=re.MULTILINE)


def quiet(purpose: str) -> None:
    """Silence the loggers of one of `LOG_LEVELS`."""
    for name, level in LOG_LEVELS[purpose].items():
        logging.getLogger(name).setLevel(level)
    if purpose == "llm" and not logging.getLogger("ray.llm").handlers:
        # ray.llm's modules give themselves handlers that print, unless their parent has one when they are imported.
        logging.getLogger("ray.llm").addHandler(logging.NullHandler())


def node_address(address: str | None) -> dict[str, Any]:
    """Arguments of ``ray.init`` for a local session at an address; publicly, ``ray start`` alone takes one."""
    return {"_node_ip_address": address}


def haproxy_settings(folder: Path, metrics_port: int, stats_port: int, fallback_port: int) -> dict[str, str]:
    """Variables for Serve behind HAProxy on one machine.

    Parameters
    ----------
    folder : Path
        Where HAProxy keeps its files. The defaults are shared by all services of a machine, which would then take each
        other's sockets away.
    metrics_port, stats_port, fallback_port : int
        Free ports.
    """
    return {
        **dict.fromkeys(HAPROXY_FLAGS, "1"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
        # Serve waits so long for outside load balancers before a replica ends. HAProxy on the same machine needs none.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
    }


def find_user_error(error: BaseException) -> LexrayError | None:
    """The `LexrayError` that an error carries, or None.

    One raised in a Ray worker reaches the driver wrapped: by Ray Core (``cause``), by Ray Train (``worker_failures``,
    ``_base_exc``), each with the worker's stack trace as its text. Ray Data keeps that text alone. One attribute for
    the original error, whatever wraps it, would take its place.
    """
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        candidate = pending.pop(0)
        if not isinstance(candidate, BaseException) or id(candidate) in seen:
            continue
        seen.add(id(candidate))
        cause = vars(candidate).get("cause")
        if isinstance(candidate, LexrayError) and cause is None:
            return candidate
        failures = vars(candidate).get("worker_failures") or {}
        pending += [cause, vars(candidate).get("_base_exc"), *failures.values(), candidate.__cause__]
    traced = _TRACEBACK_LINE.search(str(error))
    return None if traced is None else (ConfigError if traced[1] == "ConfigError" else LexrayError)(traced[2])


def replace_engine_stage(processor: Any, make: Any, restarts: Mapping[str, int]) -> None:
    """Put a subclass of the stage that holds vLLM's engine into a processor of `ray.data.llm`.

    An argument of ``build_processor`` for the stage's class and its workers' restarts would take its place.

    Parameters
    ----------
    processor : ray.data.llm.Processor
    make : callable
        Returns the subclass of a stage.
    restarts : mapping
        Options of the stage's workers.
    """
    name = "vLLMEngineStage"
    found = processor.get_stage_by_name(name)
    # A copy: assigning to the stage's field would work out its resources anew, and ask for a GPU.
    processor.stages[name] = found.model_copy(
        update={"fn": make(found.fn), "map_batches_kwargs": found.map_batches_kwargs | dict(restarts)}
    )


def stage_that_answers(stage: type[Any], make: Callable[[AskEngine], AnswerRows]) -> type[Any]:
    """A subclass of the stage that holds vLLM's engine, in which a function of ours answers the rows.

    A row of the stage is one question. An engine in an actor that a function of ``map_batches`` may ask, and that Ray
    starts anew where it dies, would take its place.

    Parameters
    ----------
    stage : type
        ``ray.llm._internal.batch.stages.vllm_engine_stage.vLLMEngineStageUDF``.
    make : callable
        Called once in each worker.
    """

    class AnsweringStage(stage):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._answer_rows = make(self._ask)

        async def udf(self, batch: list[Row]) -> AsyncIterator[Row]:
            for row, columns in zip(batch, await self._answer_rows(batch), strict=True):
                yield {self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN], **columns}

        async def _ask(self, question: Row) -> Any:
            # Where the engine is dead this ends the worker, and Ray repeats the work in another.
            return await self._generate_with_error_handling({self.IDX_IN_BATCH_COLUMN: 0, **question}, uuid.uuid4())

    return AnsweringStage
