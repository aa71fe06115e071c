"""`lexray rates`: write reconstructed rates of detections, part by part on Ray Data."""

from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from lexray import cluster, storage
from lexray.autodecoding import load_autodecoder
from lexray.config import JobConfig
from lexray.events.eventlist import from_table
from lexray.job import Context, Job, Outcome
from lexray.partwise import PartFunction, map_parts
from lexray.schemas import RATES


class Config(JobConfig):
    """Configuration of `rates`."""

    events: str = Field(description="events table")
    autodecoder: str = Field(description="folder of a trained autodecoder")
    bins: int = Field(256, ge=1, description="cells from the first to the last good time")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")


def run(config: Config, context: Context) -> Outcome:
    """Reconstruct every detection, and write the rates table: a row a detection and band."""
    n_bands = load_autodecoder(config.autodecoder).n_bands
    n = storage.dataset(config.events).count_rows()
    with cluster.session(config.ray), context.progress.task("rates", total=n * n_bands) as task:
        make = partial(_reconstructor, config.autodecoder, config.bins)
        fragments = map_parts(config.events, config.out, RATES, make, task, config.workers)
    storage.commit(config.out, "rates", RATES, fragments)
    return Outcome(counts={"detections": n, "rates": n * n_bands}, taken=n)


def _reconstructor(autodecoder: str, bins: int) -> PartFunction:
    model = load_autodecoder(autodecoder)

    def reconstruct(_: int, rows: pa.Table) -> pa.Table:
        events = from_table(rows.sort_by("detection_id"))
        found = model.rates(events, bins)
        n_bands = model.n_bands
        return pa.table(
            {
                "detection_id": np.repeat([e.detection_id for e in events], n_bands),
                "band": np.tile(np.arange(n_bands, dtype=np.int8), len(events)),
                "t": [(edges[:-1] + edges[1:]) / 2 for edges, _ in found for _ in range(n_bands)],
                "rate": [band for _, rate in found for band in rate],
            }
        )

    return reconstruct


JOB = Job(
    name="rates",
    config=Config,
    run=run,
    inputs=("events", "autodecoder"),
    positional=("events",),
    summary="Write reconstructed rates of detections.",
)
