"""`lexray rates`: write reconstructed rates of detections, part by part on Ray Data."""

from pydantic import Field

from lexray.inference.autodecoder import REFERENCE, load_autodecoder
from lexray.inference.encode import count_flagged, write_tables
from lexray.jobs.autodecoder_path import AutodecoderPath
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta


class RatesConfig(JobConfig):
    """Configuration of `lexray rates`."""

    events: str = Field(description="events table")
    autodecoder: AutodecoderPath = REFERENCE
    bins: int = Field(256, ge=1, description="cells from the first to the last good time")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")


def run(config: RatesConfig, context: JobContext) -> JobResult:
    """Reconstruct every detection that the model can take, and write one row per detection and band."""
    with ray_session.session(config.ray):
        left_out = write_tables(
            config.events,
            config.autodecoder,
            None,
            config.out,
            context.progress,
            bins=config.bins,
            workers=config.workers,
            from_scratch=config.force,
        )
    n_rates = delta.dataset(config.out).count_rows()
    n = n_rates // load_autodecoder(config.autodecoder).n_bands
    return JobResult(
        counts={
            "detections": n,
            **count_flagged(JOB.name, config.out, context.progress),
            "rates": n_rates,
            "left_out": len(left_out),
        },
        refusals=left_out,
        accepted=n,
    )


JOB = Job("rates", RatesConfig, run, inputs=("events", "autodecoder"), positional=("events",))
