"""The functions that workers of `encode` and `rates` apply to rows of an `events` table."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from lexray.events import validate
from lexray.inference.autodecoder import Autodecoder, Encoded, RateInCells, load_autodecoder
from lexray.inference.photons import PHOTON_COLUMNS, photons_of_table
from lexray.models.autodecoders.photons import Photons
from lexray.runtime.map_parts import MappedRows, OutputTable, PartFunction
from lexray.tables import schemas
from lexray.tables.list_columns import list_array

#: Columns of `events` that an encoder reads.
COLUMNS = ("detection_id", "source_id", "n_events", *PHOTON_COLUMNS)
#: Probability with which a rate lies between `lower` and `upper` of the `rates` table.
INTERVAL = 0.68


def latents_output(path: str, latent_dim: int) -> OutputTable:
    """The `latents` table as an output of `map_parts`."""
    return OutputTable(path, "latents", schemas.latents(latent_dim), ("detection_id",))


def rates_output(path: str) -> OutputTable:
    """The `rates` table as an output of `map_parts`."""
    return OutputTable(path, "rates", schemas.RATES, ("detection_id", "band"))


def encoder(autodecoder: str, device: str) -> PartFunction:
    """Function that makes rows of the `latents` table; detections that cannot be encoded are left out."""

    def encode(model: Autodecoder, rows: pa.Table, photons: Photons) -> list[pa.Table]:
        return [_latents(model, rows, model.encode_photons(photons))]

    return _photon_function(autodecoder, device, encode)


def reconstructor(autodecoder: str, device: str, bins: int) -> PartFunction:
    """Function that makes rows of the `rates` table, one row per detection and band, `bins` cells each.

    `lower` and `upper` are null where the autodecoder has no intervals.
    """

    def reconstruct(model: Autodecoder, rows: pa.Table, photons: Photons) -> list[pa.Table]:
        return [_rates(model, rows, model.rates_of_photons(photons, bins, INTERVAL))]

    return _photon_function(autodecoder, device, reconstruct)


def encoder_with_rates(autodecoder: str, device: str, bins: int) -> PartFunction:
    """Function that makes the rows of both tables, from one pass over the photons."""

    def encode(model: Autodecoder, rows: pa.Table, photons: Photons) -> list[pa.Table]:
        encoded, rates = model.encode_photons_with_rates(photons, bins, INTERVAL)
        return [_latents(model, rows, encoded), _rates(model, rows, rates)]

    return _photon_function(autodecoder, device, encode)


def _photon_function(
    autodecoder: str, device: str, make_tables: Callable[[Autodecoder, pa.Table, Photons], Sequence[pa.Table]]
) -> PartFunction:
    model = load_autodecoder(autodecoder, device)

    def map_rows(rows: pa.Table) -> MappedRows:
        refused = validate.faults(rows, model.n_bands)
        rows = validate.without(rows, refused)
        return MappedRows(make_tables(model, rows, photons_of_table(rows, model.n_bands)), refused)

    return map_rows


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
