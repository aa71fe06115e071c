"""Cells on the clock of good time: none is spent on a gap, and hardly any spans one that matters.

Good-time intervals that are a quarter of a cell or more apart are segments of their own, each cut into equal cells of
about the same length in all segments. So a rate that jumps while nobody looks, from one orbit to the next, jumps
between two cells. Where there are more such gaps than a quarter of the cells, the longest count.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import Photons, TensorFields, offsets_of

#: A gap is one from this share of a cell on.
_SMALLEST_GAP = 0.25
#: At most one cell in so many begins a segment.
_CELLS_A_SEGMENT = 4


@dataclass(frozen=True)
class TimeCells(TensorFields):
    """Cells of N detections, K each; those that a detection does not need come last, without exposure.

    Attributes
    ----------
    exposure : f4[N, K]
        Good time in each cell, over `width`: at most 1.
    gap : f4[N, K]
        Between a cell and the one before it, in seconds; 0 where they touch.
    begin, end : f8[N, K]
        Of each cell, in seconds since the detection's start.
    width : f4[N]
        Of the longest possible cell, in seconds.
    """

    exposure: Tensor
    gap: Tensor
    begin: Tensor
    end: Tensor
    width: Tensor

    @property
    def middle(self) -> Tensor:
        """Of each cell, over the detection's duration: f4[N, K], 0 … 1."""
        duration = self.end.amax(1, keepdim=True).clamp(min=1e-12)
        return ((self.begin + self.end) / 2 / duration).float()

    def select(self, rows: Tensor) -> "TimeCells":
        """Those of the detections `rows`."""
        return self.map(lambda value: value[rows])


class GoodTimeSegments:
    """GoodTimeSegments of N detections, S in all, and how they are cut into cells.

    Parameters
    ----------
    photons : Photons
        The detections.
    most : i8[N]
        Cells that each may use, at least `_CELLS_A_SEGMENT`.
    """

    def __init__(self, photons: Photons, most: Tensor) -> None:
        photons = _without_empty_intervals(photons)
        self._photons = photons
        of, good = photons.gti_owner, photons.ontime
        starts = photons.gti_offsets[:-1][photons.gti_offsets.diff() > 0]
        gap = torch.zeros_like(photons.gti_start)
        gap[1:] = photons.gti_start[1:] - photons.gti_stop[:-1]
        gap[starts] = 0.0
        opens = (gap > _SMALLEST_GAP * (good / most)[of]) & (_rank(gap, photons) < (most // _CELLS_A_SEGMENT)[of])
        opens[starts] = True
        self._opening = opens.nonzero()[:, 0]  # each segment's first interval
        self._of_interval = opens.cumsum(0) - 1
        self._gap = gap[opens]
        self.owner = of[opens]  # i8[S]
        length = torch.zeros(len(self.owner), dtype=torch.float64)
        length.index_add_(0, self._of_interval, photons.gti_stop - photons.gti_start)
        # However lengths are rounded up, there are no more cells than `most`. Without good time any width will do.
        n_segments = torch.bincount(self.owner, minlength=len(photons))
        self.width = torch.where(good > 0, good / (most - n_segments).clamp(min=1), 1.0)
        self.n_cells = (length / self.width[self.owner] - 1e-9).ceil().long().clamp(min=1)
        self._cell_length = length / self.n_cells
        before = self.n_cells.cumsum(0) - self.n_cells
        of_detection = torch.bincount(self.owner, self.n_cells.double(), len(photons)).long()
        self._first_cell = before - (of_detection.cumsum(0) - of_detection)[self.owner]
        self._passed = photons.good_time_before

    def cell_of(self, owner: Tensor, time: Tensor) -> Tensor:
        """Cell, i8[P], of each `time`, f8[P] in seconds since the start of the detection `owner`, i8[P]."""
        interval = self._photons.interval_of(owner, time)
        since = torch.minimum(time, self._photons.gti_stop[interval]) - self._photons.gti_start[interval]
        segment = self._of_interval[interval]
        good_time = self._passed[interval] + since.clamp(min=0.0) - self._passed[self._opening][segment]
        number = (good_time / self._cell_length[segment].clamp(min=1e-12)).floor().long().clamp(min=0)
        return self._first_cell[segment] + torch.minimum(number, self.n_cells[segment] - 1)

    def time_cells(self, k: int) -> TimeCells:
        """The cells, K for each detection."""
        photons, of = self._photons, torch.repeat_interleave(torch.arange(len(self.owner)), self.n_cells)
        number = torch.arange(len(of)) - (self.n_cells.cumsum(0) - self.n_cells)[of]
        owner, length = self.owner[of], self._cell_length[of]
        begin = photons.time_at(owner, self._passed[self._opening][of] + number * length)
        # By rounding, the start of a segment may come to lie before the gap.
        begin = torch.where(number == 0, photons.gti_start[self._opening][of], begin)
        closing = torch.cat([self._opening[1:] - 1, torch.tensor([len(self._of_interval) - 1])])
        last = number == self.n_cells[of] - 1
        end = torch.where(last, photons.gti_stop[closing[: len(self.owner)]][of], begin.roll(-1))
        place = owner * k + self._first_cell[of] + number

        def laid_out(value: Tensor, otherwise: Tensor) -> Tensor:
            return otherwise[:, None].repeat(1, k).flatten().index_put((place,), value).reshape(-1, k)

        nothing, stop = torch.zeros(len(photons), dtype=torch.float64), photons.duration
        return TimeCells(
            laid_out(length / self.width[owner], nothing).float(),
            laid_out(torch.where(number == 0, self._gap[of], 0.0), nothing).float(),
            laid_out(begin, stop),
            laid_out(end, stop),
            self.width.float(),
        )


def _without_empty_intervals(photons: Photons) -> Photons:
    """The same without intervals that end when they begin, of detections that have others."""
    of, length = photons.gti_owner, photons.gti_stop - photons.gti_start
    kept = (length > 0) | (photons.ontime[of] == 0)
    if kept.all():
        return photons
    return replace(
        photons,
        gti_start=photons.gti_start[kept],
        gti_stop=photons.gti_stop[kept],
        gti_offsets=offsets_of(of[kept], len(photons)),
    )


def _rank(value: Tensor, photons: Photons) -> Tensor:
    """Rank of each good-time interval's `value` among its detection's, i8[G]; 0 is the largest."""
    order = value.argsort(descending=True, stable=True)
    order = order[photons.gti_owner[order].argsort(stable=True)]
    rank = torch.arange(len(order)) - photons.gti_offsets[photons.gti_owner[order]]
    return torch.empty_like(order).index_put((order,), rank)
