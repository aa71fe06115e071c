"""`lexray encode`: encode detections with a trained autodecoder, part by part on Ray Data."""

from functools import partial

import numpy as np
from pydantic import Field

from lexray.events import validate
from lexray.inference import encode
from lexray.inference.autodecoder import load_autodecoder
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.runtime.map_parts import map_parts
from lexray.tables import delta, schemas
from lexray.tables.part_checkpoints import PartCheckpoints
from lexray.tables.quarantine import write_quarantine


class EncodeConfig(JobConfig):
    """Configuration of `lexray encode`."""

    events: str = Field(description="events table")
    autodecoder: str = Field(description="folder of a trained autodecoder")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")
    use_gpu: bool = Field(False, description="give each worker a GPU")


def run(config: EncodeConfig, context: JobContext) -> JobResult:
    """Encode every detection that the model can take, and write the latents table."""
    model = load_autodecoder(config.autodecoder)
    schema = schemas.latents(model.latent_dim)
    n = delta.dataset(config.events).count_rows()
    checkpoints = PartCheckpoints(
        config.out, [delta.version(p) for p in (config.events, config.autodecoder)], from_scratch=config.force
    )
    with ray_session.session(config.ray), context.progress.task("detections", total=n) as task:
        fragments = map_parts(
            config.events,
            config.out,
            schema,
            partial(encode.encoder, config.autodecoder, "cuda" if config.use_gpu else "cpu"),
            task,
            config.workers,
            columns=encode.COLUMNS,
            order=["detection_id"],
            sliced=True,
            use_gpu=config.use_gpu,
            checkpoints=checkpoints,
        )
    delta.commit(config.out, "latents", schema, fragments)
    checkpoints.remove()

    left_out = validate.invalid_rows(config.events, config.out, model.n_bands)
    if left_out:
        context.progress.warn(f"encode: {validate.describe_invalid_rows(left_out)}")
    nll = delta.read(config.out, ["nll"])["nll"].to_numpy()
    return JobResult(
        counts={"detections": len(nll), "left_out": len(left_out)},
        metrics={"mean_nll": float(np.mean(nll))} if len(nll) else {},
        outputs=[write_quarantine(config.out, JOB.name, validate.refusals(config.events, left_out))],
        refused=len(left_out),
        accepted=len(nll),
    )


JOB = Job(
    name="encode",
    config=EncodeConfig,
    run=run,
    inputs=("events", "autodecoder"),
    positional=("events",),
)
