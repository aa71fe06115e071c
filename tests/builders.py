"""Builders of event lists, photons and papers, shared by all tests: what a test does not name has a plain value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike

from lexray.events.eventlist import Bands, EventList, GoodTimeIntervals
from lexray.literature.connectors import PaperMatch
from lexray.literature.crossmatch import Match
from lexray.literature.papers import Paper
from lexray.models.autodecoders.photons import BackgroundPhotons, Photons
from lexray.tables.schemas import LITERATURE

BANDS = Bands((0.5, 1.2, 2.0, 7.0))
#: Energies in keV, one in each of `BANDS`.
ENERGIES = np.array([0.8, 1.5, 4.0], dtype=np.float32)


def event_list(
    time: ArrayLike,
    energy: ArrayLike | None = None,
    gti: GoodTimeIntervals | float = 1e4,
    *,
    detection_id: str = "d",
    source_id: str = "s",
    bands: Bands = BANDS,
    exposure: float | None = None,
    **fields: Any,
) -> EventList:
    """A detection; times are sorted, energies belong to the sorted times.

    Parameters
    ----------
    time : f8[P]
    energy : f4[P] or float, optional
        In keV; by default those of `ENERGIES` in turn.
    gti : GoodTimeIntervals or float
        A number is the length of a single interval from 0.
    exposure : float, optional
        By default all good time.
    **fields
        Of `EventList`.
    """
    sorted_time = np.sort(np.asarray(time, dtype=np.float64))
    energies = np.resize(ENERGIES, len(sorted_time)) if energy is None else np.asarray(energy, dtype=np.float32)
    good = gti if isinstance(gti, GoodTimeIntervals) else GoodTimeIntervals([0.0], [gti])
    return EventList(
        detection_id,
        source_id,
        sorted_time,
        np.broadcast_to(energies, sorted_time.shape).copy(),
        good,
        bands,
        good.ontime if exposure is None else exposure,
        **fields,
    )


def photons(
    times: Sequence[ArrayLike],
    bands: Sequence[ArrayLike] | None = None,
    gti: Sequence[tuple[float, float]] = ((0.0, 1.0),),
    *,
    n_bands: int = 1,
    energies: Sequence[ArrayLike] | None = None,
    energy_range: tuple[float, float] = (0.5, 7.0),
    background: BackgroundPhotons | None = None,
) -> Photons:
    """Detections with the same good-time intervals.

    Parameters
    ----------
    times : sequence of f8[P]
        Of each detection.
    bands : sequence of i8[P], optional
        By default all photons are in the first band.
    gti : sequence of (start, stop)
    energies : sequence of f4[P], optional
        By default 1 keV.
    """
    n = len(times)
    time = np.concatenate([np.asarray(one, dtype=np.float64) for one in times])
    band = np.zeros(len(time), dtype=np.int64) if bands is None else np.concatenate([np.asarray(b) for b in bands])
    energy = np.ones(len(time)) if energies is None else np.concatenate([np.asarray(one) for one in energies])
    start, stop = np.asarray(gti, dtype=np.float64).reshape(-1, 2).T
    return Photons(
        torch.from_numpy(time),
        torch.from_numpy(band.astype(np.int64)),
        torch.tensor([0, *(np.size(one) for one in times)]).cumsum(0),
        torch.from_numpy(np.tile(start, n)),
        torch.from_numpy(np.tile(stop, n)),
        torch.arange(n + 1) * len(start),
        torch.from_numpy(energy.astype(np.float32)),
        torch.tensor([energy_range]).expand(n, 2),
        torch.ones(n),
        torch.full((n, n_bands), torch.nan),
        torch.full((n,), torch.nan),
        BackgroundPhotons.none(n) if background is None else background,
        n_bands,
    )


def literature_table(papers: Sequence[Paper], matches: Sequence[Match]) -> pa.Table:
    """Rows of the `literature` table, of papers that files brought."""
    rows = [PaperMatch(paper, match, "file").row() for paper, match in zip(papers, matches, strict=True)]
    return pa.Table.from_pylist(rows, schema=LITERATURE)
