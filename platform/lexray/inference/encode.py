"""The functions that workers of `encode` and `rates` apply to rows of an `events` table."""

import numpy as np
import pyarrow as pa

from lexray.events import validate
from lexray.events.arrow import from_table
from lexray.inference.autodecoder import load_autodecoder
from lexray.inference.photons import PHOTON_COLUMNS, photons_of_table
from lexray.runtime.map_parts import PartFunction
from lexray.tables.list_columns import list_array

#: Columns of `events` that an encoder reads.
COLUMNS = ("detection_id", "source_id", "n_events", *PHOTON_COLUMNS)
#: Probability with which a rate lies between `lower` and `upper` of the `rates` table.
INTERVAL = 0.68


def encoder(autodecoder: str, device: str) -> PartFunction:
    """Function that gives rows of the `latents` table; detections that cannot be encoded are left out."""
    model = load_autodecoder(autodecoder, device)

    def encode(_: int, rows: pa.Table) -> pa.Table:
        rows = validate.without(rows, validate.faults(rows, model.n_bands))
        encoded = model.encode_photons(photons_of_table(rows, model.n_bands))
        n = rows.num_rows
        columns = {
            "detection_id": rows["detection_id"],
            "source_id": rows["source_id"],
            "model": [model.name] * n,
            "latent": pa.FixedSizeListArray.from_arrays(encoded.latent.ravel(), model.latent_dim),
            "log_rate": list_array(encoded.log_rate, np.float32),
            "latent_var": None if encoded.latent_var is None else list_array(encoded.latent_var, np.float32),
            "nll": encoded.nll,
            "n_steps": np.full(n, encoded.n_steps, dtype=np.int32),
            "anomaly": encoded.anomaly,
            "p_value": encoded.p_value,
        }
        return pa.table({name: column for name, column in columns.items() if column is not None})

    return encode


def reconstructor(autodecoder: str, bins: int) -> PartFunction:
    """Function that gives rows of the `rates` table, one row per detection and band, `bins` cells each.

    `lower` and `upper` are null where the autodecoder has no intervals.
    """
    model = load_autodecoder(autodecoder)

    def reconstruct(_: int, rows: pa.Table) -> pa.Table:
        events = from_table(validate.without(rows, validate.faults(rows, model.n_bands)))
        found, n_bands = model.rates_with_intervals(events, bins, INTERVAL), model.n_bands
        columns = {
            "detection_id": np.repeat([e.detection_id for e in events], n_bands),
            "band": np.tile(np.arange(n_bands, dtype=np.int8), len(events)),
            "t": [(edges[:-1] + edges[1:]) / 2 for edges, *_ in found for _ in range(n_bands)],
            "rate": [band for _, rate, _, _ in found for band in rate],
        }
        if model.has_intervals:
            columns["lower"] = [band for *_, lower, _ in found if lower is not None for band in lower]
            columns["upper"] = [band for *_, upper in found if upper is not None for band in upper]
        return pa.table(columns)

    return reconstruct
