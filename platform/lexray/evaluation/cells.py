"""Photons and good time in equal cells of each detection: what baselines with a fixed grid are fitted to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lexray.evaluation.heldout import FIT_FRACTION, PiecewiseRate, RateModel
from lexray.events.eventlist import EventList
from lexray.inference.photons import photons_of
from lexray.models.autodecoders.likelihood import cell_counts, exposure_shares
from lexray.models.autodecoders.photons import Photons

#: Cells of a detection; the baselines' rates are constant within each.
N_CELLS = 256
#: From photons to log-shapes f[N, 1 or B, K]; their level does not matter.
ShapeModel = Callable[[Photons], Tensor]


@dataclass(frozen=True)
class CellCounts:
    """N detections in K equal cells from 0 to the end of the last good time.

    Attributes
    ----------
    counts : f4[N, B, K]
        Photons.
    exposure : f4[N, K]
        Good time as a share of the detection's duration.
    """

    counts: Tensor
    exposure: Tensor

    @property
    def log_exposure(self) -> Tensor:
        """Log of the exposure, a large negative number where there is none, f4[N, K]."""
        return self.exposure.clamp(min=1e-30).log()


def count_in_cells(photons: Photons, n_cells: int = N_CELLS) -> CellCounts:
    """Sum photons and good time in cells."""
    return CellCounts(cell_counts(photons, n_cells), exposure_shares(photons, n_cells) / n_cells)


def shape_gain(log_shape: Tensor, held: CellCounts) -> Tensor:
    """What a shape adds to a constant rate on held-out photons, f8[N] in nats.

    Parameters
    ----------
    log_shape : f[N, 1 or B, K]
    held : CellCounts
        The held-out photons.

    Notes
    -----
    The difference of two `heldout.score`, in which the level's terms cancel: all models have the same.
    """
    shape = log_shape.double().expand(held.counts.shape)
    mean = torch.logsumexp(shape + held.log_exposure[:, None], -1) - held.exposure.sum(-1).log()[:, None]
    return (held.counts * (shape - mean[..., None])).sum((1, 2))


def mean_gain(model: ShapeModel, photons: Photons, seed: int) -> float:
    """Held-out gain of a model on `photons`, in bits per held-out photon: by which its settings are chosen."""
    fit, rest = photons.thin(FIT_FRACTION, torch.Generator().manual_seed(seed))
    held = count_in_cells(rest)
    return float(shape_gain(model(fit), held).sum() / held.counts.sum().clamp(min=1) / np.log(2))


def as_rate_model(model: ShapeModel) -> RateModel:
    """The model for `heldout.score_models`: event lists in, rates out. It can be sent to a worker."""
    return partial(_rates, model)


def _rates(model: ShapeModel, events: Sequence[EventList]) -> list[PiecewiseRate]:
    """Rates of shapes, with an arbitrary level: `PiecewiseRate.at_level` gives them theirs."""
    if not events:
        return []
    photons = photons_of(events, len(events[0].bands))
    shape = model(photons).double().expand(-1, photons.n_bands, -1)
    relative = torch.exp(shape - shape.amax(-1, keepdim=True)).clamp(min=1e-12).numpy()
    edges = np.linspace(0.0, photons.duration.numpy(), relative.shape[-1] + 1, axis=1)
    return list(map(PiecewiseRate, edges, relative))
