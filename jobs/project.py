"""`lexray project`: project latents and text vectors into the shared space of a trained alignment."""

from collections import Counter

from pydantic import Field, model_validator

from lexray.inference.project import ProjectedTable, load_towers, project_part
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.runtime.map_parts import results_of_parts
from lexray.tables import delta, schemas
from lexray.tables.delta import Fragment
from lexray.tables.quarantine import Refusal


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
    given = ((ProjectedTable.of_latents, config.latents), (ProjectedTable.of_texts, config.text_embeddings))
    tables = [table_of(path) for table_of, path in given if path is not None]
    for table in tables:
        table.check(towers, config.alignment)

    schema = schemas.embeddings(towers.sizes.dimension)
    total = sum(delta.dataset(table.path).count_rows() for table in tables)
    fragments: list[Fragment] = []
    refusals: list[Refusal] = []
    counts: Counter[str] = Counter()
    with ray_session.session(config.ray), context.progress.task("vectors", total=total) as task:
        for table in tables:
            for fragment, refused in results_of_parts(
                project_part, table.path, table, towers, config.out, schema, workers=config.workers
            ):
                fragments.append(fragment)
                refusals += refused
                counts[table.modality] += fragment.n_rows
                task.advance(fragment.n_rows)
    delta.commit(config.out, "embeddings", schema, fragments)
    return JobResult(
        counts={"detections": counts["xray"], "texts": counts["text"], "refused": len(refusals)},
        refusals=sorted(refusals, key=lambda refusal: (refusal.file, refusal.detail)),
        accepted=counts.total(),
    )


JOB = Job("project", ProjectConfig, run, inputs=("alignment", "latents", "text_embeddings"), positional=("alignment",))
