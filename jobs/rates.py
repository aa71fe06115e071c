"""`lexray rates`: write reconstructed rates of detections, part by part on Ray Data."""

from functools import partial

from pydantic import Field

from lexray.events import validate
from lexray.inference import encode
from lexray.inference.autodecoder import load_autodecoder
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.runtime.map_parts import map_parts
from lexray.tables import delta
from lexray.tables.part_checkpoints import PartCheckpoints
from lexray.tables.quarantine import write_quarantine
from lexray.tables.schemas import RATES


class RatesConfig(JobConfig):
    """Configuration of `lexray rates`."""

    events: str = Field(description="events table")
    autodecoder: str = Field(description="folder of a trained autodecoder")
    bins: int = Field(256, ge=1, description="cells from the first to the last good time")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")


def run(config: RatesConfig, context: JobContext) -> JobResult:
    """Reconstruct every detection that the model can take, and write one row per detection and band."""
    n_bands = load_autodecoder(config.autodecoder).n_bands
    n = delta.dataset(config.events).count_rows()
    depends_on = [*(delta.version(path) for path in (config.events, config.autodecoder)), config.bins]
    checkpoints = PartCheckpoints(config.out, depends_on, from_scratch=config.force)
    with ray_session.session(config.ray), context.progress.task("rates", total=n * n_bands) as task:
        fragments = map_parts(
            config.events,
            config.out,
            RATES,
            partial(encode.reconstructor, config.autodecoder, config.bins),
            task,
            config.workers,
            order=["detection_id", "band"],
            sliced=True,
            checkpoints=checkpoints,
        )
    delta.commit(config.out, "rates", RATES, fragments)
    checkpoints.remove()

    left_out = validate.invalid_rows(config.events, config.out, n_bands)
    if left_out:
        context.progress.warn(f"rates: {validate.describe_invalid_rows(left_out)}")
    n -= len(left_out)
    return JobResult(
        counts={"detections": n, "rates": n * n_bands, "left_out": len(left_out)},
        outputs=[write_quarantine(config.out, JOB.name, validate.refusals(config.events, left_out))],
        refused=len(left_out),
        accepted=n,
    )


JOB = Job(
    name="rates",
    config=RatesConfig,
    run=run,
    inputs=("events", "autodecoder"),
    positional=("events",),
)
