"""`lexray encode`: fit latents of detections with a trained autodecoder, part by part on Ray Data."""

from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from lexray import cluster, schemas, storage
from lexray.autodecoding import load_autodecoder, photons_of_table
from lexray.config import JobConfig
from lexray.job import Context, Job, Outcome
from lexray.partwise import PartFunction, map_parts


class Config(JobConfig):
    """Configuration of `encode`."""

    events: str = Field(description="events table")
    autodecoder: str = Field(description="folder of a trained autodecoder")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")


def run(config: Config, context: Context) -> Outcome:
    """Fit every detection, and write the latents table."""
    schema = schemas.latents(load_autodecoder(config.autodecoder).latent_dim)
    n = storage.dataset(config.events).count_rows()
    with cluster.session(config.ray), context.progress.task("detections", total=n) as task:
        make = partial(_encoder, config.autodecoder)
        fragments = map_parts(config.events, config.out, schema, make, task, config.workers)
    storage.commit(config.out, "latents", schema, fragments)
    nll = storage.read(config.out, ["nll"])["nll"].to_numpy()
    return Outcome(counts={"detections": n}, metrics={"mean_nll": float(np.mean(nll))} if n else {}, taken=n)


def _encoder(autodecoder: str) -> PartFunction:
    model = load_autodecoder(autodecoder)

    def encode(_: int, rows: pa.Table) -> pa.Table:
        rows = rows.sort_by("detection_id")
        encoded = model.encode_photons(photons_of_table(rows, model.n_bands))
        n = rows.num_rows
        return pa.table(
            {
                "detection_id": rows["detection_id"],
                "source_id": rows["source_id"],
                "model": [model.name] * n,
                "latent": pa.FixedSizeListArray.from_arrays(encoded.latent.ravel(), model.latent_dim),
                "log_rate": list(encoded.log_rate),
                "nll": encoded.nll,
                "n_steps": np.full(n, encoded.n_steps, dtype=np.int32),
            }
        )

    return encode


JOB = Job(
    name="encode",
    config=Config,
    run=run,
    inputs=("events", "autodecoder"),
    positional=("events",),
    summary="Fit latents of detections with a trained autodecoder.",
)
