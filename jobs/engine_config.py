"""Keys of the jobs that run a text model: on vLLM, or behind an API like OpenAI's."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from lexray.llm.openai import Endpoint
from lexray.llm.vllm import VllmSettings
from lexray.runtime.config import JobConfig


class TextEngineConfig(JobConfig):
    """Keys that `lexray summarize` and `lexray embed` share; each says itself which engines it has."""

    engine: str
    batch_size: int = Field(ge=1)
    endpoint: Endpoint | None = Field(None, description="an API like OpenAI's: url, model and more; for engine 'http'")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="'auto' takes a GPU where there is one")
    replicas: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        1, description="engines, or the smallest and the largest number: more are started while there is work"
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share each layer of a vLLM engine's model")
    pipeline_parallel: int = Field(1, ge=1, description="groups of a model's layers, each on GPUs of its own")

    @model_validator(mode="after")
    def _engine_fits(self) -> "TextEngineConfig":
        if (self.engine == "http") != (self.endpoint is not None):
            raise ValueError("engine 'http' and 'endpoint' come together")
        if isinstance(self.replicas, tuple) and self.replicas[0] > self.replicas[1]:
            raise ValueError("'replicas' takes the fewest first, then the most")
        return self

    def vllm_settings(self, extra: Mapping[str, Any] | None = None) -> VllmSettings:
        """Settings of vLLM's engines without a GPU, with further arguments."""
        return VllmSettings(
            gpu=False,
            replicas=self.replicas,
            batch_size=self.batch_size,
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            extra=extra or {},
        )
