"""The background in a source's region, from the photons of a region near it.

The background's rate is estimated as that of a source would be, its region's photons being an event list of their own.
The background photons that it predicts in each cell of the source's region are then fixed while the source is fitted
(`likelihood`): a background region is usually several times larger, so its rate is known that much better.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lexray.models.autodecoders.likelihood import CellBackground, Cells, cell_counts, cell_log_integrals, cells
from lexray.models.autodecoders.photons import BackgroundPhotons, Photons


def background_regions(photons: Photons) -> Photons:
    """The background regions of N detections as detections of their own, without the photons' energies."""
    region = photons.background
    return replace(
        photons,
        time=region.time,
        band=region.band,
        offsets=region.offsets,
        energy=torch.full(region.time.shape, torch.nan, dtype=photons.energy.dtype),
        background=BackgroundPhotons.none(len(photons)),
    )


def with_background(data: Cells, photons: Photons, log_shape: Callable[[Cells], Tensor]) -> Cells:
    """`data` with the background that is expected in each cell, where it is known.

    Parameters
    ----------
    data : Cells
        Of `photons`.
    photons : Photons
        N detections.
    log_shape : callable
        Estimates log-shapes f[M, B, K] from the cells of M detections.
    """
    rows = photons.background.known.nonzero()[:, 0]
    if len(rows) == 0:
        return data
    mine = photons.select(rows)
    n_cells = data.exposure.shape[1]
    region = cells(background_regions(mine), n_cells + 1)
    share = cell_log_integrals(log_shape(region), region.exposure, region.centre).softmax(-1)
    # No prior is added to the counts: a region that saw nothing must not take photons from its source.
    expected = region.counts[..., None] * share / mine.background.scale[:, None, None]
    return replace(data, background=CellBackground(rows, cell_counts(mine, n_cells), expected))
