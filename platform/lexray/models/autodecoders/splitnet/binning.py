"""Photons on cells of time and of energy, detections of one number of cells together.

A detection has 256 cells. It has twice as many from 81 ks of good time or 2,100 photons on, four times as many from
twice that, and so on, and fewer where these would be shorter than a frame of its detector: cells are as fine as its
photons can tell apart. What is faster
than a cell, pulsations above all, is out of reach.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import Photons, TensorFields, gather, owner
from lexray.models.autodecoders.splitnet.network import NetworkInput
from lexray.models.autodecoders.splitnet.time_cells import GoodTimeSegments, TimeCells

#: Cells of a detection with up to `_USUAL_ONTIME` and `_USUAL_COUNTS`; the fewest and the most that any has.
DEFAULT_CELLS, FEWEST, MOST = 256, 16, 2048
_USUAL_ONTIME, _USUAL_COUNTS = 57_600.0, 1_500.0
#: The network halves the number of cells six times: arrays have a multiple of this, however few cells are used.
SMALLEST_ARRAY = 64
#: Logarithmic energy cells from a detection's lowest band edge to its highest.
ENERGY_CELLS = 48


@dataclass(frozen=True)
class BinnedPhotons(TensorFields):
    """N detections on K cells of time each.

    Attributes
    ----------
    slot : i4[P]
        Cell of each photon within its detection: ``band · K + cell``.
    energy_cell : i4[P]
        0 … ENERGY_CELLS − 1.
    offsets : i8[N + 1]
        Photons ``offsets[i]:offsets[i + 1]`` belong to detection i.
    cells : TimeCells
    duration : f4[N]
        From the first good time's start to the last one's stop, in seconds.
    area : f4[N]
        Effective area in cm² times the live fraction, mean over the bands; NaN where unknown.
    energy_range : f4[N, 2]
        keV.
    background_slot : i4[Q]
        As `slot`, of the photons of the background regions.
    background_offsets : i8[N + 1]
    scale : f4[N]
        The background region's area × exposure over the source's; NaN where there is none.
    n_bands : int
        B.
    """

    slot: Tensor
    energy_cell: Tensor
    offsets: Tensor
    cells: TimeCells
    duration: Tensor
    area: Tensor
    energy_range: Tensor
    background_slot: Tensor
    background_offsets: Tensor
    scale: Tensor
    n_bands: int

    def __len__(self) -> int:
        return len(self.duration)

    @property
    def n_cells(self) -> int:
        """K."""
        return self.cells.exposure.shape[1]

    @property
    def owner(self) -> Tensor:
        """Detection of each photon, i8[P]."""
        return owner(self.offsets)

    def select(self, rows: Tensor) -> "BinnedPhotons":
        """The detections `rows`, i8[M], in that order."""
        photons, offsets = gather(self.offsets, rows)
        background, background_offsets = gather(self.background_offsets, rows)
        return BinnedPhotons(
            self.slot[photons],
            self.energy_cell[photons],
            offsets,
            self.cells.select(rows),
            self.duration[rows],
            self.area[rows],
            self.energy_range[rows],
            self.background_slot[background],
            background_offsets,
            self.scale[rows],
            self.n_bands,
        )

    def counts(self, chosen: Tensor | None = None) -> Tensor:
        """Photons in each cell, or of them those where `chosen`, bool[P], holds: f4[N, B, K]."""
        return self._count(self.slot, self.owner, chosen)

    def background_counts(self) -> Tensor:
        """Photons of the background regions in each cell, f4[N, B, K]."""
        return self._count(self.background_slot, owner(self.background_offsets), None)

    def energies(self, chosen: Tensor | None = None) -> Tensor:
        """Photons in each cell of energy, f4[N, ENERGY_CELLS]."""
        slot = self.owner * ENERGY_CELLS + self.energy_cell
        slot = slot if chosen is None else slot[chosen]
        return torch.bincount(slot, minlength=len(self) * ENERGY_CELLS).reshape(len(self), -1).float()

    def seen(self) -> NetworkInput:
        """What `splitnet` sees of all their photons."""
        return NetworkInput(
            self.counts(),
            self.cells.exposure,
            self.cells.gap,
            self.cells.middle,
            self.background_counts(),
            self.scale,
            self.cells.width,
            self.duration,
            self.area,
            self.energies(),
            self.energy_range,
        )

    def _count(self, slot: Tensor, of: Tensor, chosen: Tensor | None) -> Tensor:
        size = self.n_bands * self.n_cells
        flat = of * size + slot
        flat = flat if chosen is None else flat[chosen]
        return torch.bincount(flat, minlength=len(self) * size).reshape(len(self), self.n_bands, -1).float()


def n_cells(photons: Photons) -> Tensor:
    """Cells that each detection may use, i8[N]."""
    return cells_for(photons.ontime, photons.counts.sum(1), photons.frame_time)


def cells_for(ontime: Tensor, counts: Tensor, frame_time: Tensor) -> Tensor:
    """Cells that detections may use, i8[N]: the power of two that the module's docstring describes.

    Parameters
    ----------
    ontime : f[N]
        Good time in seconds.
    counts : f[N]
        Photons in all bands.
    frame_time : f[N]
        Seconds; NaN where events are not framed.
    """
    crowded = torch.maximum(ontime / _USUAL_ONTIME, counts / _USUAL_COUNTS)
    wanted = DEFAULT_CELLS * 2.0 ** crowded.clamp(min=1.0).log2().round()
    frames = (ontime / frame_time).nan_to_num(torch.inf).clamp(min=float(FEWEST))
    allowed = 2.0 ** frames.clamp(max=float(MOST)).log2().floor()
    return torch.minimum(wanted, allowed).clamp(FEWEST, MOST).long()


def bin_photons(photons: Photons, most: Tensor | None = None) -> tuple[dict[int, BinnedPhotons], Tensor, Tensor]:
    """Bin detections, those of one number of cells together.

    Parameters
    ----------
    photons : Photons
        N detections.
    most : i8[N], optional
        Cells that each may use, if not `n_cells` of these photons: those of others of the same detections, say.

    Returns
    -------
    groups : dict of int to BinnedPhotons
        By K, each with its detections in their order.
    size : i8[N]
        K of each detection.
    place : i8[N]
        Its row in that group.
    """
    most = n_cells(photons) if most is None else most
    size = most.clamp(min=SMALLEST_ARRAY)
    place = torch.zeros(len(photons), dtype=torch.int64)
    groups = {}
    for k in sorted(set(size.tolist())):
        rows = (size == k).nonzero()[:, 0]
        place[rows] = torch.arange(len(rows))
        groups[k] = _bin(photons.select(rows), k, most[rows])
    return groups, size, place


def _bin(photons: Photons, k: int, most: Tensor) -> BinnedPhotons:
    segments, background = GoodTimeSegments(photons, most), photons.background
    low, high = (edge[photons.owner] for edge in photons.energy_range.log().unbind(1))
    energy_cell = ((photons.energy.log() - low) / (high - low) * ENERGY_CELLS).int().clamp(0, ENERGY_CELLS - 1)
    return BinnedPhotons(
        photons.band.int() * k + segments.cell_of(photons.owner, photons.time).int(),
        energy_cell,
        photons.offsets,
        segments.time_cells(k),
        photons.duration.float(),
        photons.area.mean(1) * photons.live,
        photons.energy_range,
        background.band.int() * k + segments.cell_of(background.owner, background.time).int(),
        background.offsets,
        background.scale,
        photons.n_bands,
    )
