"""`lexray rates`: write reconstructed rates of detections, part by part on Ray Data."""

from functools import partial

from pydantic import Field

from lexray.events.validate import refusals
from lexray.inference import encode
from lexray.inference.autodecoder import load_autodecoder
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.runtime.map_parts import map_parts
from lexray.tables import delta


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
    with ray_session.session(config.ray), context.progress.task("rates", total=n * n_bands) as task:
        left_out = map_parts(
            config.events,
            [encode.rates_output(config.out)],
            partial(encode.reconstructor, config.autodecoder, "cpu", config.bins),
            task,
            config.workers,
            depends_on=[delta.version(config.autodecoder), config.bins],
            from_scratch=config.force,
            columns=encode.COLUMNS,
            sliced=True,
        )
    n_rates = delta.dataset(config.out).count_rows()
    n = n_rates // n_bands
    return JobResult(
        counts={"detections": n, "rates": n_rates, "left_out": len(left_out)},
        refusals=refusals(config.events, left_out),
        accepted=n,
    )


JOB = Job(
    name="rates",
    config=RatesConfig,
    run=run,
    inputs=("events", "autodecoder"),
    positional=("events",),
)
