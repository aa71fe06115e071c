"""Event lists as ragged tensors: values and offsets, nothing padded."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lexray.errors import LexrayError
from lexray.events.arrow import to_table
from lexray.events.eventlist import Bands, EventList
from lexray.models.autodecoders.photons import BackgroundPhotons, Photons
from lexray.tables.list_columns import flatten_lists, floats

#: Columns of the `events` table that `photons_of_table` reads.
PHOTON_COLUMNS = (
    "time", "energy", "bands", "gti_start", "gti_stop", "ontime", "exposure", "area", "frame_time",
    "bkg_time", "bkg_energy", "bkg_scale",
)  # fmt: skip


def photons_of(events: Sequence[EventList], n_bands: int) -> Photons:
    """Ragged tensors of event lists.

    Raises
    ------
    LexrayError
        If a detection has no good time, or not `n_bands` bands.
    """
    for e in events:
        _require(len(e.bands) == n_bands, f"{e.detection_id}: has {len(e.bands)} energy bands, expected {n_bands}")
        _require(e.gti.ontime > 0, f"{e.detection_id}: has no good time")
        _require(not np.any(e.band < 0), f"{e.detection_id}: has an event outside its energy bands")
    return photons_of_table(to_table(list(events)), n_bands)


def photons_of_table(rows: pa.Table, n_bands: int) -> Photons:
    """As `photons_of`, for rows of the `events` table with the columns `PHOTON_COLUMNS`.

    The lists' values and offsets are taken as they are; there is no loop over rows, but one over the few sets of bands.
    """
    time, offsets = flatten_lists(rows["time"])
    energy, _ = flatten_lists(rows["energy"])
    start, gti_offsets = flatten_lists(rows["gti_start"])
    stop, _ = flatten_lists(rows["gti_stop"])
    edges, edge_offsets = flatten_lists(rows["bands"])
    _require(bool(np.all(np.diff(edge_offsets) == n_bands + 1)), f"events: a row has not {n_bands} energy bands")
    _require(bool(np.all(np.diff(gti_offsets) > 0)), "events: a row has no good time")
    edges = edges.reshape(-1, n_bands + 1)
    band = _bands_of(energy, offsets, edges)
    _require(not np.any(band < 0), "events: a photon lies outside its row's energy bands")
    area = rows["area"].fill_null([np.nan] * n_bands)
    return Photons(
        torch.from_numpy(np.array(time)),
        torch.from_numpy(band),
        torch.from_numpy(offsets),
        torch.from_numpy(np.array(start)),
        torch.from_numpy(np.array(stop)),
        torch.from_numpy(gti_offsets),
        torch.from_numpy(np.array(energy)),
        torch.from_numpy(edges[:, [0, -1]].copy()),
        torch.from_numpy((floats(rows["exposure"]) / floats(rows["ontime"])).astype(np.float32)),
        torch.from_numpy(flatten_lists(area)[0].astype(np.float32).reshape(-1, n_bands)),
        torch.from_numpy(floats(rows["frame_time"]).astype(np.float32)),
        _background_of_table(rows, edges),
        n_bands,
    )


def _background_of_table(rows: pa.Table, edges: NDArray[np.floating]) -> BackgroundPhotons:
    time, offsets = flatten_lists(rows["bkg_time"])
    energy, _ = flatten_lists(rows["bkg_energy"])
    band = _bands_of(energy, offsets, edges)
    before = np.concatenate([[0], np.cumsum(band >= 0)])
    return BackgroundPhotons(
        torch.from_numpy(time[band >= 0]),
        torch.from_numpy(band[band >= 0]),
        torch.from_numpy(before[offsets]),
        torch.from_numpy(floats(rows["bkg_scale"]).astype(np.float32)),
    )


def _bands_of(
    energy: NDArray[np.floating], offsets: NDArray[np.int64], edges: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Band of each photon, i8[P], by its row's `edges` f[N, B + 1]; −1 outside them."""
    sets, which = np.unique(edges, axis=0, return_inverse=True)
    owner = np.repeat(which, np.diff(offsets))
    band = np.empty(len(energy), dtype=np.int64)
    for i, one in enumerate(sets):
        band[owner == i] = Bands(tuple(one.tolist())).index(energy[owner == i])
    return band


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise LexrayError(message)
