"""`lexray project`: project latents and text vectors into the shared space of a trained alignment."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from pydantic import Field, model_validator

from lexray.inference.project import check_latents, check_texts, load_towers, project_latents, project_texts
from lexray.models.alignment.towers import Towers
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta, schemas
from lexray.tables.quarantine import Refusal, write_quarantine

#: Turns rows of a table into rows of `embeddings`.
ProjectRows = Callable[[Towers, str, pa.Table], pa.Table]


class ProjectConfig(JobConfig):
    """Configuration of `lexray project`."""

    alignment: str = Field(description="folder of a trained alignment")
    latents: str | None = Field(None, description="latents table")
    text_embeddings: str | None = Field(None, description="text_embeddings table")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")

    @model_validator(mode="after")
    def _something_to_project(self) -> "ProjectConfig":
        if self.latents is None and self.text_embeddings is None:
            raise ValueError("at least one of 'latents' and 'text_embeddings' is needed")
        return self


def run(config: ProjectConfig, context: JobContext) -> JobResult:
    """Project part by part, and write one embeddings table."""
    towers = load_towers(config.alignment)
    todo: list[tuple[str, str, ProjectRows]] = []
    if config.latents is not None:
        check_latents(towers, config.alignment, config.latents)
        todo.append((config.latents, "detection_id", project_latents))
    if config.text_embeddings is not None:
        check_texts(towers, config.alignment, config.text_embeddings)
        todo.append((config.text_embeddings, "source_id", project_texts))

    schema = schemas.embeddings(towers.sizes.dimension)
    total = sum(delta.dataset(table).count_rows() for table, _, _ in todo)
    parts = [{"todo": i, "part": part} for i, (table, _, _) in enumerate(todo) for part in delta.part_files(table)]
    fragments = []
    with ray_session.session(config.ray), context.progress.task("vectors", total=total) as task:
        mapped = ray.data.from_items(parts, override_num_blocks=max(1, min(len(parts), 2 * config.workers))).map(
            partial(_project_part, towers, [(table, project) for table, _, project in todo], config.out, schema),
            compute=ray.data.TaskPoolStrategy(size=config.workers),
        )
        for row in mapped.iter_rows():
            fragments.append(delta.Fragment(**row))
            task.advance(row["n_rows"])
    delta.commit(config.out, "embeddings", schema, fragments)

    written = delta.read(config.out, ["id", "modality"]).to_pylist()
    refusals = [row for table, identity, _ in todo for row in _refusals(table, identity, written)]
    counts = Counter(row["modality"] for row in written)
    return JobResult(
        counts={"detections": counts["xray"], "texts": counts["text"], "refused": len(refusals)},
        outputs=[write_quarantine(config.out, JOB.name, refusals)],
        refused=len(refusals),
        accepted=len(written),
    )


def _project_part(
    towers: Towers, todo: list[tuple[str, ProjectRows]], out: str, schema: pa.Schema, row: dict[str, Any]
) -> dict[str, Any]:
    table, project = todo[row["todo"]]
    part = int(row["part"])
    rows = project(towers, table, delta.read(table, parts=[part]))
    return asdict(delta.write_part(out, schema, part, rows))


def _refusals(table: str, identity: str, written: list[dict[str, str]]) -> list[Refusal]:
    """Rows of a table that have no vector now."""
    modality = "xray" if identity == "detection_id" else "text"
    done = {row["id"] for row in written if row["modality"] == modality}
    return [
        Refusal(table, "not_finite", f"{identity} {name}: its vector is missing or holds numbers that are not finite")
        for name in delta.read(table, [identity], order=identity)[identity].to_pylist()
        if name not in done
    ]


JOB = Job(
    name="project",
    config=ProjectConfig,
    run=run,
    inputs=("alignment", "latents", "text_embeddings"),
    positional=("alignment",),
)
