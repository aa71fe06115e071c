"""What is used of Ray beyond its public interface is still there, and stands in one module."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

from lexray.runtime import ray_internals

ROOT = Path(__file__).parents[2]


def test_it_was_checked_with_the_version_that_is_installed() -> None:
    assert importlib.metadata.version("ray") == ray_internals.RAY_VERSION


@pytest.mark.parametrize("name", [name for levels in ray_internals.LOG_LEVELS.values() for name in levels])
def test_a_logger_that_is_silenced_is_a_module_of_ray_s(name: str) -> None:
    assert importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("name", ["IDX_IN_BATCH_COLUMN", "udf", "_generate_with_error_handling"])
def test_the_stage_that_holds_vllms_engine_has_what_ours_replaces_and_calls(name: str) -> None:
    ray_internals.quiet("llm")
    stages = importlib.import_module("ray.llm._internal.batch.stages.vllm_engine_stage")
    assert hasattr(stages.vLLMEngineStageUDF, name)


def test_no_other_module_of_ours_names_what_is_private_to_ray() -> None:
    private = re.compile(
        r"ray\.[\w.]*\b_\w+|ray\.dashboard|_node_ip|_base_exc|RAY_SERVE_\w*(HAPROXY|HA_PROXY)_?[A-Z]"
        r"|\bray\.llm|vLLMEngineStage|IDX_IN_BATCH_COLUMN|_generate_with_error_handling|\bdef udf\b"
    )
    sources = [path for room in ("platform/lexray", "jobs", "serve") for path in (ROOT / room).rglob("*.py")]
    found = {path.name for path in sources if private.search(path.read_text())}
    assert found == {"ray_internals.py"}
