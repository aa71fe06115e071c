"""`lexray encode`: encode detections with a trained autodecoder, part by part on Ray Data."""

from pydantic import Field

from lexray.inference.autodecoder import REFERENCE
from lexray.inference.encode import count_flagged, write_tables
from lexray.jobs.autodecoder_path import AutodecoderPath
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta


class EncodeConfig(JobConfig):
    """Configuration of `lexray encode`."""

    events: str = Field(description="events table")
    autodecoder: AutodecoderPath = REFERENCE
    rates: str | None = Field(None, description="write the reconstructed rates to this table, from the same pass")
    bins: int = Field(256, ge=1, description="cells of the rates, from the first to the last good time")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")
    use_gpu: bool = Field(False, description="give each worker a GPU")


def run(config: EncodeConfig, context: JobContext) -> JobResult:
    """Encode every detection that the model can take, and write the latents table, with the rates where asked for."""
    with ray_session.session(config.ray):
        left_out = write_tables(
            config.events,
            config.autodecoder,
            config.out,
            config.rates,
            context.progress,
            bins=config.bins,
            workers=config.workers,
            use_gpu=config.use_gpu,
            from_scratch=config.force,
        )
    nll = delta.read(config.out, ["nll"])["nll"].to_numpy()
    n_rates = {} if config.rates is None else {"rates": delta.dataset(config.rates).count_rows()}
    return JobResult(
        counts={
            "detections": len(nll),
            **count_flagged(JOB.name, config.out, context.progress),
            "left_out": len(left_out),
        }
        | n_rates,
        metrics={"mean_nll": float(nll.mean())} if len(nll) else {},
        outputs=[] if config.rates is None else [config.rates],
        refusals=left_out,
        accepted=len(nll),
    )


JOB = Job("encode", EncodeConfig, run, inputs=("events", "autodecoder"), positional=("events",), outputs=("rates",))
