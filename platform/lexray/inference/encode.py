"""An events table → the tables `latents` and `rates`, part by part."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexray.events import validate
from lexray.inference.autodecoder import Autodecoder, Encoded, RateInCells, load_autodecoder
from lexray.inference.photons import PHOTON_COLUMNS, photons_of_table
from lexray.runtime.map_parts import MappedRows, OutputTable, PartFunction, map_parts
from lexray.runtime.progress import Progress
from lexray.tables import delta, schemas
from lexray.tables.list_columns import list_array
from lexray.tables.quarantine import Refusal

#: Columns of `events` that an encoder reads.
COLUMNS = ("detection_id", "source_id", "n_events", *PHOTON_COLUMNS)
#: Probability with which a rate lies between `lower` and `upper` of the `rates` table.
INTERVAL = 0.68


def write_tables(
    events: str,
    autodecoder: str,
    latents: str | None,
    rates: str | None,
    progress: Progress,
    *,
    bins: int,
    workers: int,
    use_gpu: bool = False,
    from_scratch: bool = False,
) -> list[Refusal]:
    """Map an events table to the tables `latents` and `rates`, either or both, from one pass over the photons.

    Parameters
    ----------
    events, autodecoder : str
        Table, and folder of a trained autodecoder.
    latents, rates : str or None
        Tables to write: a row per detection, and one per detection and band.
    progress : Progress
    bins : int
        Cells of a rate, from the first to the last good time.
    workers : int
        Worker processes, each with one CPU, and with a GPU where `use_gpu`.
    from_scratch : bool
        Do everything again that a killed run has done.

    Returns
    -------
    list of Refusal
        Detections that the autodecoder cannot take, which were left out.
    """
    model = load_autodecoder(autodecoder)
    tables = (
        (latents, "latents", schemas.latents(model.latent_dim), ("detection_id",)),
        (rates, "rates", schemas.RATES, ("detection_id", "band")),
    )
    outputs = [OutputTable(path, *described) for path, *described in tables if path is not None]
    device = "cuda" if use_gpu else "cpu"
    make = partial(encoder, autodecoder, device, latents is not None, None if rates is None else bins)
    n = delta.dataset(events).count_rows() * (model.n_bands if latents is None else 1)
    with progress.task("rates" if latents is None else "detections", total=n) as task:
        refused = map_parts(
            events,
            outputs,
            make,
            task,
            workers,
            depends_on=[delta.version(autodecoder), None if rates is None else bins],
            from_scratch=from_scratch,
            columns=COLUMNS,
            sliced=True,
            use_gpu=use_gpu,
        )
    return validate.refusals(events, refused)


def count_flagged(job: str, table: str, progress: Progress) -> dict[str, int]:
    """How many detections of a `latents` or `rates` table are flagged; where there are some, a person is told.

    Nothing where the autodecoder does not know what its training held.
    """
    rows, one_each = delta.dataset(table), pc.scalar(True)
    if "band" in rows.schema.names:
        one_each = pc.field("band") == 0
    if not rows.count_rows(filter=one_each & pc.field("flags").is_valid()):
        return {}
    n = int(rows.count_rows(filter=one_each & (pc.list_value_length(pc.field("flags")) > 0)))
    if n:
        progress.warn(f"{job}: {n} detections are unlike the training's; the column 'flags' of {table} says by what")
    return {"flagged": n}


def encoder(autodecoder: str, device: str, latents: bool, bins: int | None) -> PartFunction:
    """Function that makes rows of the `latents` table, of the `rates` table where `bins` are given, or of both.

    Detections that cannot be encoded are left out. There is a row of rates per detection and band, with `bins` cells
    each; `lower` and `upper` are null where the autodecoder has no intervals.
    """
    model = load_autodecoder(autodecoder, device)

    def encode(rows: pa.Table) -> MappedRows:
        refused = validate.faults(rows, model.n_bands)
        rows = validate.without(rows, refused)
        photons = photons_of_table(rows, model.n_bands)
        if bins is None:
            return MappedRows([_latents(model, rows, model.encode_photons(photons))], refused)
        encoded, rates = model.encode_photons_with_rates(photons, bins, INTERVAL)
        written = [_latents(model, rows, encoded)] if latents else []
        return MappedRows([*written, _rates(model, rows, encoded, rates)], refused)

    return encode


def _latents(model: Autodecoder, rows: pa.Table, encoded: Encoded) -> pa.Table:
    columns = {
        "detection_id": rows["detection_id"],
        "source_id": rows["source_id"],
        "model": [model.name] * rows.num_rows,
        "latent": pa.FixedSizeListArray.from_arrays(encoded.latent.ravel(), model.latent_dim),
        "log_rate": list_array(encoded.log_rate, np.float32),
        "latent_var": None if encoded.latent_var is None else list_array(encoded.latent_var, np.float32),
        "nll": encoded.nll,
        "n_steps": np.full(rows.num_rows, encoded.n_steps, dtype=np.int32),
        **_like_training(encoded),
    }
    return pa.table({name: column for name, column in columns.items() if column is not None})


def _like_training(encoded: Encoded) -> dict[str, Any]:
    flags = None if encoded.flags is None else pa.array(encoded.flags, pa.list_(pa.string()))
    known = {"anomaly": encoded.anomaly, "p_value": encoded.p_value, "flags": flags}
    return {name: pa.array(column) for name, column in known.items() if column is not None}


def _rates(model: Autodecoder, rows: pa.Table, encoded: Encoded, rates: Sequence[RateInCells]) -> pa.Table:
    n_bands = model.n_bands
    of_each = np.repeat(np.arange(rows.num_rows), n_bands)
    columns = {
        "detection_id": rows["detection_id"].take(of_each),
        "band": np.tile(np.arange(n_bands, dtype=np.int8), rows.num_rows),
        "t": [(edges[:-1] + edges[1:]) / 2 for edges, *_ in rates for _ in range(n_bands)],
        "rate": [band for _, rate, _, _ in rates for band in rate],
        **{name: column.take(of_each) for name, column in _like_training(encoded).items()},
    }
    if model.has_intervals:
        columns["lower"] = [band for *_, lower, _ in rates if lower is not None for band in lower]
        columns["upper"] = [band for *_, upper in rates if upper is not None for band in upper]
    return pa.table(columns)
