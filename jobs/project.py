"""`lexray project`: project latents and text vectors into the shared space of a trained alignment."""

from collections import Counter

from pydantic import Field, model_validator

from lexray.inference.project import (
    ProjectedTable,
    check_latents,
    check_texts,
    load_towers,
    project_latents,
    project_part,
    project_texts,
)
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.runtime.map_parts import results_of_parts
from lexray.tables import delta, schemas
from lexray.tables.quarantine import write_quarantine


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
    tables: list[ProjectedTable] = []
    if config.latents is not None:
        check_latents(towers, config.alignment, config.latents)
        tables.append(ProjectedTable(config.latents, "xray", "detection_id", project_latents))
    if config.text_embeddings is not None:
        check_texts(towers, config.alignment, config.text_embeddings)
        tables.append(ProjectedTable(config.text_embeddings, "text", "source_id", project_texts))

    schema = schemas.embeddings(towers.sizes.dimension)
    total = sum(delta.dataset(table.path).count_rows() for table in tables)
    with ray_session.session(config.ray), context.progress.task("vectors", total=total) as task:
        fragments = []
        for table in tables:
            what = (table, towers, config.out, schema)
            for fragment in results_of_parts(project_part, table.path, *what, workers=config.workers):
                fragments.append(fragment)
                task.advance(fragment.n_rows)
    delta.commit(config.out, "embeddings", schema, fragments)

    written = delta.read(config.out, ["id", "modality"]).to_pylist()
    refusals = [refusal for table in tables for refusal in table.refusals(written)]
    counts = Counter(row["modality"] for row in written)
    return JobResult(
        counts={"detections": counts["xray"], "texts": counts["text"], "refused": len(refusals)},
        outputs=[write_quarantine(config.out, JOB.name, refusals)],
        refused=len(refusals),
        accepted=len(written),
    )


JOB = Job(
    name="project",
    config=ProjectConfig,
    run=run,
    inputs=("alignment", "latents", "text_embeddings"),
    positional=("alignment",),
)
