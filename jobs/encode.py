"""`lexray encode`: encode detections with a trained autodecoder, part by part on Ray Data."""

from functools import partial

import numpy as np
from pydantic import Field

from lexray.events.validate import refusals
from lexray.inference import encode
from lexray.inference.autodecoder import load_autodecoder
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.runtime.map_parts import map_parts
from lexray.tables import delta


class EncodeConfig(JobConfig):
    """Configuration of `lexray encode`."""

    events: str = Field(description="events table")
    autodecoder: str = Field(description="folder of a trained autodecoder")
    rates: str | None = Field(None, description="write the reconstructed rates to this table, from the same pass")
    bins: int = Field(256, ge=1, description="cells of the rates, from the first to the last good time")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")
    use_gpu: bool = Field(False, description="give each worker a GPU")


def run(config: EncodeConfig, context: JobContext) -> JobResult:
    """Encode every detection that the model can take, and write the latents table, with the rates where asked for."""
    model, device = load_autodecoder(config.autodecoder), "cuda" if config.use_gpu else "cpu"
    outputs = [encode.latents_output(config.out, model.latent_dim)]
    make = partial(encode.encoder, config.autodecoder, device)
    if config.rates is not None:
        outputs.append(encode.rates_output(config.rates))
        make = partial(encode.encoder_with_rates, config.autodecoder, device, config.bins)
    n = delta.dataset(config.events).count_rows()
    with ray_session.session(config.ray), context.progress.task("detections", total=n) as task:
        left_out = map_parts(
            config.events,
            outputs,
            make,
            task,
            config.workers,
            depends_on=[delta.version(config.autodecoder), config.bins],
            from_scratch=config.force,
            columns=encode.COLUMNS,
            sliced=True,
            use_gpu=config.use_gpu,
        )
    nll = delta.read(config.out, ["nll"])["nll"].to_numpy()
    n_rates = {} if config.rates is None else {"rates": len(nll) * model.n_bands}
    return JobResult(
        counts={"detections": len(nll), "left_out": len(left_out)} | n_rates,
        metrics={"mean_nll": float(np.mean(nll))} if len(nll) else {},
        outputs=[output.path for output in outputs[1:]],
        refusals=refusals(config.events, left_out),
        accepted=len(nll),
    )


JOB = Job(
    name="encode",
    config=EncodeConfig,
    run=run,
    inputs=("events", "autodecoder"),
    positional=("events",),
    outputs=("rates",),
)
