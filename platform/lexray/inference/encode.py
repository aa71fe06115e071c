"""An events table → the tables `latents` and `rates`, part by part."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

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
        if not latents:
            return MappedRows([_rates(model, rows, model.rates_of_photons(photons, bins, INTERVAL))], refused)
        encoded, rates = model.encode_photons_with_rates(photons, bins, INTERVAL)
        return MappedRows([_latents(model, rows, encoded), _rates(model, rows, rates)], refused)

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
        "anomaly": encoded.anomaly,
        "p_value": encoded.p_value,
    }
    return pa.table({name: column for name, column in columns.items() if column is not None})


def _rates(model: Autodecoder, rows: pa.Table, rates: Sequence[RateInCells]) -> pa.Table:
    n_bands = model.n_bands
    columns = {
        "detection_id": rows["detection_id"].take(np.repeat(np.arange(rows.num_rows), n_bands)),
        "band": np.tile(np.arange(n_bands, dtype=np.int8), rows.num_rows),
        "t": [(edges[:-1] + edges[1:]) / 2 for edges, *_ in rates for _ in range(n_bands)],
        "rate": [band for _, rate, _, _ in rates for band in rate],
    }
    if model.has_intervals:
        columns["lower"] = [band for *_, lower, _ in rates if lower is not None for band in lower]
        columns["upper"] = [band for *_, upper in rates if upper is not None for band in upper]
    return pa.table(columns)
