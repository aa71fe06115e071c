"""Photons on cells of time and of energy, detections of one number of cells together.

A detection has 256 cells, more where it lasts longer than 28.8 ks and fewer where these would be shorter than a frame
of its detector: from some 100 s to 200 ks the cells are as fine as the photons of a typical source can tell apart. What
is faster than a cell, pulsations above all, is out of reach.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import Photons, TensorFields, gather, owner
from lexray.models.autodecoders.splitnet.network import NetworkInput

#: Cells of a detection that lasts up to `_USUAL_DURATION`; the fewest and the most that any has.
DEFAULT_CELLS, FEWEST, MOST = 256, 16, 2048
_USUAL_DURATION = 28_800.0
#: Logarithmic energy cells from a detection's lowest band edge to its highest.
ENERGY_CELLS = 48
#: Good-time intervals times cells whose exposure is summed at once.
_CHUNK = 1_000_000


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
    exposure : f4[N, K]
        Good time in each cell, as a share of the cell's width.
    width : f4[N]
        Of a cell, in seconds.
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
    exposure: Tensor
    width: Tensor
    area: Tensor
    energy_range: Tensor
    background_slot: Tensor
    background_offsets: Tensor
    scale: Tensor
    n_bands: int

    def __len__(self) -> int:
        return len(self.width)

    @property
    def n_cells(self) -> int:
        """K."""
        return self.exposure.shape[1]

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
            self.exposure[rows],
            self.width[rows],
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
            self.exposure,
            self.background_counts(),
            self.scale,
            self.width,
            self.area,
            self.energies(),
            self.energy_range,
        )

    def _count(self, slot: Tensor, of: Tensor, chosen: Tensor | None) -> Tensor:
        size = self.n_bands * self.n_cells
        flat = of * size + slot
        flat = flat if chosen is None else flat[chosen]
        return torch.bincount(flat, minlength=len(self) * size).reshape(len(self), self.n_bands, -1).float()


def n_cells(duration: Tensor, frame_time: Tensor) -> Tensor:
    """Cells of each detection: the power of two that the module's docstring describes.

    Parameters
    ----------
    duration, frame_time : f[N]
        Seconds; NaN where events are not framed.

    Returns
    -------
    i8[N]
    """
    wanted = DEFAULT_CELLS * 2.0 ** (duration / _USUAL_DURATION).clamp(min=1.0).log2().round()
    frames = (duration / frame_time).nan_to_num(torch.inf).clamp(min=float(FEWEST))
    allowed = 2.0 ** frames.clamp(max=float(MOST)).log2().floor()
    return torch.minimum(wanted, allowed).clamp(FEWEST, MOST).long()


def bin_photons(photons: Photons) -> tuple[dict[int, BinnedPhotons], Tensor, Tensor]:
    """Bin detections, those of one number of cells together.

    Returns
    -------
    groups : dict of int to BinnedPhotons
        By K, each with its detections in their order.
    size : i8[N]
        K of each detection.
    place : i8[N]
        Its row in that group.
    """
    size = n_cells(photons.duration, photons.frame_time)
    place = torch.zeros(len(photons), dtype=torch.int64)
    groups = {}
    for k in sorted(set(size.tolist())):
        rows = (size == k).nonzero()[:, 0]
        place[rows] = torch.arange(len(rows))
        groups[k] = _bin(photons.select(rows), k)
    return groups, size, place


def _bin(photons: Photons, k: int) -> BinnedPhotons:
    duration = photons.duration
    background = photons.background
    low, high = (edge[photons.owner] for edge in photons.energy_range.log().unbind(1))
    energy_cell = ((photons.energy.log() - low) / (high - low) * ENERGY_CELLS).int().clamp(0, ENERGY_CELLS - 1)
    return BinnedPhotons(
        _slots(photons.time, duration[photons.owner], photons.band, k),
        energy_cell,
        photons.offsets,
        exposure_shares(photons, k),
        (duration / k).float(),
        photons.area.mean(1) * photons.live,
        photons.energy_range,
        _slots(background.time, duration[background.owner], background.band, k),
        background.offsets,
        background.scale,
        photons.n_bands,
    )


def _slots(time: Tensor, duration: Tensor, band: Tensor, k: int) -> Tensor:
    return band.int() * k + (time / duration * k).int().clamp(0, k - 1)


def exposure_shares(photons: Photons, k: int) -> Tensor:
    """Good time in each of `k` equal cells, as a share of the cell: f4[N, k]."""
    of = photons.gti_owner
    duration = photons.duration[of]
    start, stop = photons.gti_start / duration, photons.gti_stop / duration
    edges = torch.linspace(0.0, 1.0, k + 1, dtype=torch.float64)
    good = torch.zeros(len(photons), k + 1, dtype=torch.float64)
    for some in torch.split(torch.arange(len(of)), max(1, _CHUNK // k)):
        begin, end = start[some, None], stop[some, None]
        good.index_add_(0, of[some], torch.minimum(torch.maximum(edges, begin), end) - begin)
    return (good.diff() * k).clamp(0.0, 1.0).float()
