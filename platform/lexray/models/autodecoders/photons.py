"""Photons of many detections as values and offsets: nothing is padded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


class TensorFields:
    """A frozen dataclass whose fields are tensors, dataclasses of tensors, and plain values."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """`function` of each tensor."""
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                changed[name] = function(value)
            elif isinstance(value, TensorFields):
                changed[name] = value.map(function)
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self.map(lambda value: value.to(device))

    @classmethod
    def stack(cls, several: "Sequence[Self]") -> Self:
        """One whose tensors are those of `several` behind one another; for classes in which nothing is ragged."""
        joined: dict[str, Any] = {}
        for name, value in vars(several[0]).items():
            values = [getattr(one, name) for one in several]
            joined[name] = torch.cat(values) if isinstance(value, Tensor) else type(value).stack(values)
        return replace(several[0], **joined)  # type: ignore[type-var]


@dataclass(frozen=True)
class RaggedPhotons(TensorFields):
    """Arrival times of N detections, or of N regions beside them.

    Attributes
    ----------
    time : f8[P]
        Arrival times of all detections behind one another, in seconds since each one's start.
    band : i8[P]
        Band of each photon, 0 … B − 1.
    offsets : i8[N + 1]
        Photons ``offsets[i]:offsets[i + 1]`` belong to detection i.
    """

    time: Tensor
    band: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def owner(self) -> Tensor:
        """Detection of each photon, i8[P]."""
        return owner(self.offsets)


@dataclass(frozen=True)
class BackgroundPhotons(RaggedPhotons):
    """Photons of the background regions of N detections, during the same good time as the sources'.

    Attributes
    ----------
    scale : f4[N]
        The region's area × exposure over the source's; NaN where a detection has no background region.
    """

    scale: Tensor

    @staticmethod
    def none(n: int) -> "BackgroundPhotons":
        """Of `n` detections without a background region."""
        return BackgroundPhotons(
            torch.zeros(0, dtype=torch.float64),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(n + 1, dtype=torch.int64),
            torch.full((n,), torch.nan),
        )

    @property
    def known(self) -> Tensor:
        """Which detections have a background region, bool[N]."""
        return ~self.scale.isnan()

    def select(self, rows: Tensor) -> "BackgroundPhotons":
        """The detections `rows`, i8[M], in that order."""
        photons, offsets = gather(self.offsets, rows)
        return BackgroundPhotons(self.time[photons], self.band[photons], offsets, self.scale[rows])


@dataclass(frozen=True)
class Photons(RaggedPhotons):
    """Arrival times, energies and good-time intervals of N detections.

    Attributes
    ----------
    gti_start, gti_stop : f8[G]
        Good-time intervals of all detections, in seconds since each one's start; sorted and disjoint within one.
    gti_offsets : i8[N + 1]
        As `offsets`, for the intervals.
    energy : f4[P]
        Of each photon, in keV.
    energy_range : f4[N, 2]
        Lowest and highest edge of each detection's bands, in keV.
    live : f4[N]
        Live fraction: exposure over good time.
    area : f4[N, B]
        Effective area in cm²; NaN where unknown.
    frame_time : f4[N]
        Time resolution of the detector in seconds; NaN where events are not framed.
    background : BackgroundPhotons
    n_bands : int
        B.
    """

    gti_start: Tensor
    gti_stop: Tensor
    gti_offsets: Tensor
    energy: Tensor
    energy_range: Tensor
    live: Tensor
    area: Tensor
    frame_time: Tensor
    background: BackgroundPhotons
    n_bands: int

    @staticmethod
    def concatenate(several: "Sequence[Photons]") -> "Photons":
        """All detections behind one another."""
        return Photons(
            torch.cat([p.time for p in several]),
            torch.cat([p.band for p in several]),
            join([p.offsets for p in several]),
            torch.cat([p.gti_start for p in several]),
            torch.cat([p.gti_stop for p in several]),
            join([p.gti_offsets for p in several]),
            torch.cat([p.energy for p in several]),
            torch.cat([p.energy_range for p in several]),
            torch.cat([p.live for p in several]),
            torch.cat([p.area for p in several]),
            torch.cat([p.frame_time for p in several]),
            BackgroundPhotons(
                torch.cat([p.background.time for p in several]),
                torch.cat([p.background.band for p in several]),
                join([p.background.offsets for p in several]),
                torch.cat([p.background.scale for p in several]),
            ),
            several[0].n_bands,
        )

    @property
    def gti_owner(self) -> Tensor:
        """Detection of each good-time interval, i8[G]."""
        return owner(self.gti_offsets)

    @property
    def duration(self) -> Tensor:
        """End of each detection's last good time, f8[N] in seconds; 1 where there is no good time."""
        stop = torch.cat([self.gti_stop, torch.ones(1, dtype=torch.float64)])  # one more, for those without good time
        return stop[torch.where(self.gti_offsets.diff() > 0, self.gti_offsets[1:] - 1, -1)]

    @property
    def ontime(self) -> Tensor:
        """Good time of each detection, f8[N] in seconds."""
        return torch.zeros(len(self), dtype=torch.float64).index_add(0, self.gti_owner, self.gti_stop - self.gti_start)

    @property
    def good_time_before(self) -> Tensor:
        """Good time of its detection that has passed when each good-time interval starts, f8[G] in seconds."""
        length = self.gti_stop - self.gti_start
        before = length.cumsum(0) - length
        # Less the value at the detection's own first interval, so that this is 0 exactly.
        return before - before[self.gti_offsets[:-1][self.gti_owner]]

    def interval_of(self, owner: Tensor, time: Tensor) -> Tensor:
        """The good-time interval in which, or after which, `time` of the detections `owner` lies: i8[P].

        The detection's first one where `time` is before that.
        """
        far = float(self.gti_stop.max()) + 1.0 if len(self.gti_stop) else 1.0
        key = owner * far + time.clamp(0.0, far)
        return self._of_detection(torch.searchsorted(self.gti_owner * far + self.gti_start, key, right=True) - 1, owner)

    def _of_detection(self, interval: Tensor, owner: Tensor) -> Tensor:
        """The nearest one of the detection's own: among many detections, sums are rounded over its borders."""
        return torch.minimum(torch.maximum(interval, self.gti_offsets[owner]), self.gti_offsets[owner + 1] - 1)

    def time_at(self, owner: Tensor, good_time: Tensor) -> Tensor:
        """When `good_time` seconds of good time of the detections `owner` have passed, f8[P] in seconds.

        Where that is the end of an interval, it is the start of the next one.
        """
        far = float(self.ontime.max()) + 1.0
        passed = self.good_time_before
        found = torch.searchsorted(self.gti_owner * far + passed, owner * far + good_time, right=True) - 1
        interval = self._of_detection(found, owner)
        since = (good_time - passed[interval]).clamp(min=0.0)
        return torch.minimum(self.gti_start[interval] + since, self.gti_stop[interval])

    @property
    def counts(self) -> Tensor:
        """Photons a detection and band, f8[N, B]."""
        cell = self.owner * self.n_bands + self.band
        return torch.bincount(cell, minlength=len(self) * self.n_bands).reshape(len(self), self.n_bands).double()

    def select(self, rows: Tensor) -> "Photons":
        """The detections `rows`, i8[M], in that order."""
        photons, offsets = gather(self.offsets, rows)
        intervals, gti_offsets = gather(self.gti_offsets, rows)
        return Photons(
            self.time[photons],
            self.band[photons],
            offsets,
            self.gti_start[intervals],
            self.gti_stop[intervals],
            gti_offsets,
            self.energy[photons],
            self.energy_range[rows],
            self.live[rows],
            self.area[rows],
            self.frame_time[rows],
            self.background.select(rows),
            self.n_bands,
        )

    def keep(self, chosen: Tensor) -> "Photons":
        """The same detections with only the photons where `chosen`, bool[P], holds."""
        return replace(
            self,
            time=self.time[chosen],
            band=self.band[chosen],
            offsets=offsets_of(self.owner[chosen], len(self)),
            energy=self.energy[chosen],
        )

    def thin(self, fraction: float, generator: torch.Generator) -> "tuple[Photons, Photons]":
        """Split the photons at random: both parts are independent Poisson processes of the same shape.

        Both keep all background photons; the scale is raised, so that these say what is expected in each part.

        Parameters
        ----------
        fraction : float
            Probability of each photon to be in the first part.
        generator : torch.Generator
        """
        chosen = torch.rand(len(self.time), generator=generator) < fraction
        first, rest = self.keep(chosen), self.keep(~chosen)
        return first.background_over(fraction), rest.background_over(1 - fraction)

    def background_over(self, fraction: float | Tensor) -> "Photons":
        """As these are the share `fraction`, one or f[N], of the photons: their background is that share of it too."""
        return replace(self, background=replace(self.background, scale=self.background.scale / fraction))


def pieces(n: int, size: int) -> Iterator[Tensor]:
    """Rows of `n` detections, at most `size` at a time: i8[M] each, and none where there is no detection."""
    return (rows for rows in torch.split(torch.arange(n), size) if len(rows))


def owner(offsets: Tensor) -> Tensor:
    """Row to which each value belongs."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())


def offsets_of(owner: Tensor, n: int) -> Tensor:
    """Offsets i8[n + 1] of the values of `n` rows, by the row to which each belongs: `owner` inside out."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(owner, minlength=n).cumsum(0)])


def in_order(owner: Tensor, time: Tensor) -> Tensor:
    """The order of photons by their detection, `owner`, and by `time` within it: i8[P]."""
    by_time = time.argsort(stable=True)
    return by_time[owner[by_time].argsort(stable=True)]


def join(offsets: Sequence[Tensor]) -> Tensor:
    lengths = torch.cat([o.diff() for o in offsets])
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def gather(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the values that belong to `rows`, and the offsets they have then."""
    length = offsets.diff()[rows]
    new = torch.cat([torch.zeros(1, dtype=torch.int64), length.cumsum(0)])
    first = torch.repeat_interleave(offsets[:-1][rows] - new[:-1], length)
    return first + torch.arange(int(new[-1])), new
