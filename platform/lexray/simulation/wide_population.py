"""A population as wide as the sky that the missions see, drawn as rates on cells: what the reference model learns from.

Every kind of variability that `light_curves` has, alone or up to three at once; 10 to 30,000 counts; 100 s to 250 ks
with every pattern of good time that `good_time` has; frames; backgrounds from none to ten times the source, with and
without a region beside it; areas, energy ranges and bands of each mission; spectra from super-soft to absorbed. Nothing
is written: a part is drawn from its number whenever it is wanted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lexray.array_types import Float64s, Int64s
from lexray.events.missions import MISSIONS
from lexray.models.autodecoders.learner import keyed_generator
from lexray.models.autodecoders.photons import BackgroundPhotons, Photons, in_order, offsets_of
from lexray.models.autodecoders.splitnet.binning import DEFAULT_CELLS, ENERGY_CELLS, SMALLEST_ARRAY, cells_for
from lexray.models.autodecoders.splitnet.known_rates import KnownRates
from lexray.models.autodecoders.splitnet.time_cells import GoodTimeSegments, TimeCells
from lexray.simulation.good_time import draw_good_times, log_uniform
from lexray.simulation.light_curves import Moments, draw_shape

#: Counts of a source in all bands, and the shortest good time, in seconds.
COUNTS, SHORTEST_ONTIME = (10.0, 30_000.0), 50.0
#: Cells and detections of one part after the other, and again from the first.
PARTS = ((64, 160), *[(256, 512)] * 4, (128, 160), (512, 512), *[(256, 512)] * 4, (1024, 208), (2048, 104))
#: Moments in a cell over which its rate is averaged.
_MOMENTS = 3
#: Detections with one, two … kinds of variability at once, from none.
_N_KINDS = (0.22, 0.48, 0.24, 0.06)
_BANDS = tuple(
    sorted({i.bands for m in MISSIONS.values() for i in m.instruments.values() if len(i.bands) == 3}, key=str)
)


@dataclass(frozen=True)
class WidePopulation:
    """The population in parts of one number of cells each: a batch of one size takes half the time of a mixed one.

    Attributes
    ----------
    seed : int
        Not negative; each part of each seed has other detections.
    """

    seed: int

    def size(self, part: int) -> tuple[int, int]:
        """Cells K of the detections of a part, and how many there are."""
        return PARTS[part % len(PARTS)]

    @staticmethod
    def n_parts(n: int) -> int:
        """Parts that have about `n` detections together."""
        return max(1, round(n * len(PARTS) / sum(size for _, size in PARTS)))

    def __call__(self, part: int) -> KnownRates:
        """Rates of the detections of a part."""
        return self._draw(part).rates

    def photons(self, part: int) -> Photons:
        """The detections of a part with photons drawn from these rates."""
        drawn = self._draw(part)
        rates, generator = drawn.rates, keyed_generator(self.seed, part)
        counts = torch.poisson(rates.expected + rates.contamination, generator)
        owner, band, time = drawn.times(counts, generator)
        region = torch.poisson(rates.contamination * rates.scale.nan_to_num(0.0)[:, None, None], generator)
        region_owner, region_band, region_time = drawn.times(region, generator)
        return replace(
            drawn.photons,
            time=time,
            band=band,
            offsets=offsets_of(owner, len(rates)),
            energy=drawn.energies(owner, band, generator),
            area=rates.area[:, None].expand(-1, drawn.photons.n_bands).clone(),
            background=BackgroundPhotons(region_time, region_band, offsets_of(region_owner, len(rates)), rates.scale),
        )

    def _draw(self, part: int) -> "_Part":
        (k, n), generator = self.size(part), np.random.default_rng([self.seed, part])
        drawn = _draw_observations(generator, k, n)
        bands = np.array([_BANDS[i].edges for i in generator.integers(len(_BANDS), size=n)])
        photons = _without_photons(drawn, bands)
        cells = GoodTimeSegments(photons, torch.tensor([one.most for one in drawn])).time_cells(k)
        rates = _draw_rates_of(photons, cells, drawn, bands, generator)
        return _Part(photons, cells, rates, torch.from_numpy(bands))


@dataclass(frozen=True)
class _Part:
    """Detections without photons, their cells, rates, and bands' edges f8[N, B + 1] in keV."""

    photons: Photons
    cells: TimeCells
    rates: KnownRates
    bands: Tensor

    def times(self, counts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Detection, band and arrival time of photons in order; `counts`, f4[N, B, K], fall into each cell."""
        n_bands, k = counts.shape[1:]
        slot = torch.repeat_interleave(torch.arange(counts.numel()), counts.flatten().long())
        owner, band, cell = slot // (n_bands * k), slot // k % n_bands, slot % k
        length = self.cells.exposure.double() * self.cells.width.double()[:, None]
        within = torch.rand(len(slot), generator=generator, dtype=torch.float64)
        good_time = (length.cumsum(1) - length)[owner, cell] + within * length[owner, cell]
        time = self.photons.time_at(owner, torch.minimum(good_time, self.photons.ontime[owner]))
        order = in_order(owner, time)
        return owner[order], band[order], time[order]

    def energies(self, owner: Tensor, band: Tensor, generator: torch.Generator) -> Tensor:
        """An energy in keV for each photon, f4[P], by its detection's spectrum within its band."""
        until = torch.nn.functional.pad(self.rates.spectrum.double().cumsum(1), (1, 0))
        edges = self.bands.log()
        edge_cell = ((edges - edges[:, :1]) / (edges[:, -1:] - edges[:, :1]) * ENERGY_CELLS).round().long()
        low, high = (until[owner, edge_cell[owner, band + side]] for side in (0, 1))
        aim = torch.lerp(low, high, torch.rand(len(owner), generator=generator, dtype=torch.float64))
        # One search for all detections, whose spectra are put behind one another.
        ladder = (until + 2 * torch.arange(len(until))[:, None]).flatten()
        cell = torch.searchsorted(ladder, aim + 2 * owner, right=True) - 1 - owner * (ENERGY_CELLS + 1)
        place = cell.clamp(0, ENERGY_CELLS - 1) + torch.rand(len(owner), generator=generator, dtype=torch.float64)
        energy = torch.lerp(edges[owner, 0], edges[owner, -1], place / ENERGY_CELLS).exp()
        inside = torch.nextafter(self.bands[owner, band + 1].float(), torch.zeros(()))
        return torch.minimum(torch.maximum(energy.float(), self.bands[owner, band].float()), inside)


@dataclass(frozen=True)
class _Observation:
    """Good times (starts and stops in seconds), frame time in seconds, and cells that may be used.

    `counts` are expected of the source, and `background` beside them in its region.
    """

    good_times: tuple[Float64s, Float64s]
    counts: float
    background: float
    frame_time: float
    most: int = 0

    @property
    def ontime(self) -> float:
        start, stop = self.good_times
        return float((stop - start).sum())


def _draw_observations(generator: np.random.Generator, k: int, n: int) -> list[_Observation]:
    """Those whose arrays have K cells."""
    found: list[_Observation] = []
    while len(found) < n:
        some = [_draw_observation(generator, k) for _ in range(n)]
        described = [(one.ontime, one.counts + one.background, one.frame_time) for one in some]
        most = cells_for(*torch.tensor(described, dtype=torch.float64).unbind(1))
        found += [
            replace(one, most=m)
            for one, m in zip(some, most.tolist(), strict=True)
            if one.ontime > SHORTEST_ONTIME and max(m, SMALLEST_ARRAY) == k
        ]
    return found[:n]


def _draw_observation(generator: np.random.Generator, k: int) -> _Observation:
    """One of any number of cells; where fewer than usual are wanted, of a detector with long frames."""
    counts, frame_time = _draw_counts(generator), np.nan
    background = counts * log_uniform(generator, 0.01, 10.0) if generator.random() < 0.5 else 0.0
    found = _Observation(draw_good_times(generator), counts, background, frame_time)
    if k < DEFAULT_CELLS:
        frame_time = found.ontime / log_uniform(generator, 8.0 if k == SMALLEST_ARRAY else k, 2.0 * k)
    elif generator.random() < 0.3:
        frame_time = log_uniform(generator, 0.01, 10.0)
    return replace(found, frame_time=frame_time)


def _draw_counts(generator: np.random.Generator) -> float:
    """Log-uniform; nearly nine in ten have at most a tenth of the most."""
    low, high = COUNTS
    return log_uniform(generator, low, high / 10 if generator.random() < 0.6 else high)


def _without_photons(drawn: Sequence[_Observation], bands: Float64s) -> Photons:
    """Detections of which nothing but their good times, frames and bands is known yet."""
    n, none = len(drawn), torch.zeros(0, dtype=torch.float64)
    start, stop = (np.concatenate(side) for side in zip(*(one.good_times for one in drawn), strict=True))
    return Photons(
        time=none,
        band=none.long(),
        offsets=torch.zeros(n + 1, dtype=torch.int64),
        gti_start=torch.from_numpy(start),
        gti_stop=torch.from_numpy(stop),
        gti_offsets=torch.tensor([0, *(len(one.good_times[0]) for one in drawn)]).cumsum(0),
        energy=none.float(),
        energy_range=torch.from_numpy(bands[:, [0, -1]]).float(),
        live=torch.ones(n),
        area=torch.full((n, bands.shape[1] - 1), torch.nan),
        frame_time=torch.tensor([one.frame_time for one in drawn], dtype=torch.float32),
        background=BackgroundPhotons.none(n),
        n_bands=bands.shape[1] - 1,
    )


def _draw_rates_of(
    photons: Photons, cells: TimeCells, drawn: Sequence[_Observation], bands: Float64s, generator: np.random.Generator
) -> KnownRates:
    """Rates of M detections in their cells."""
    (m, k), n_bands = cells.exposure.shape, photons.n_bands
    expected, below = np.zeros((2, m, n_bands, k), dtype=np.float32)
    scale, area = np.full((2, m), np.nan, dtype=np.float32)
    spectrum = np.zeros((m, ENERGY_CELLS), dtype=np.float32)
    for row, (one, at) in enumerate(zip(drawn, _moments(cells, photons), strict=True)):
        used = slice(0, len(at.t) // _MOMENTS)
        exposure = cells.exposure[row, used].double().numpy()
        energies, band = _draw_spectrum(generator, bands[row])
        energies *= one.counts
        share = np.bincount(band, energies, n_bands)
        expected[row, :, used] = share[:, None] * _draw_rates(at, exposure, n_bands, generator)
        if one.background:
            level = one.background * generator.dirichlet(np.full(n_bands, 2.0))
            energies += (level / np.bincount(band, minlength=n_bands))[band]
            background = level[:, None] * _draw_rates(at, exposure, n_bands, generator)
            if generator.random() < 0.7:
                below[row, :, used], scale[row] = background, log_uniform(generator, 1.0, 100.0)
            else:  # without a region beside it nobody can tell the background from the source
                expected[row, :, used] += background
        spectrum[row] = energies / energies.sum()
        if generator.random() < 0.5:
            area[row] = log_uniform(generator, 10.0, 3_000.0)
    return KnownRates(
        torch.from_numpy(expected),
        torch.from_numpy(below),
        torch.from_numpy(scale),
        cells.exposure,
        cells.gap,
        cells.middle,
        cells.width,
        photons.duration.float(),
        torch.from_numpy(area),
        torch.from_numpy(spectrum),
        photons.energy_range,
    )


def _moments(cells: TimeCells, photons: Photons) -> Iterator[Moments]:
    """`_MOMENTS` moments of good time in each cell of each detection, one cell after the other."""
    share = (torch.arange(_MOMENTS, dtype=torch.float64) + 0.5) / _MOMENTS
    length = cells.exposure.double() * cells.width.double()[:, None]
    good_time = (length.cumsum(1) - length)[..., None] + share * length[..., None]
    owner = torch.arange(len(photons))[:, None, None].expand_as(good_time)
    t = photons.time_at(owner.flatten(), good_time.flatten()).reshape(len(photons), -1)
    segment = (cells.gap > 0).cumsum(1).repeat_interleave(_MOMENTS, 1)
    n_used = ((cells.exposure > 0).sum(1) * _MOMENTS).tolist()
    for n, *of_detection in zip(n_used, t.numpy(), segment.numpy(), photons.duration, photons.ontime, strict=True):
        moments, segments, duration, ontime = of_detection
        yield Moments(moments[:n], segments[:n], float(duration), float(ontime))


def _draw_rates(at: Moments, exposure: Float64s, n_bands: int, generator: np.random.Generator) -> Float64s:
    """Share of each band's counts in each cell, f8[B, C]: each band's add up to 1."""
    shape = np.zeros((n_bands, len(at.t)))
    for _ in range(generator.choice(len(_N_KINDS), p=_N_KINDS)):
        shape += _in_bands(n_bands, generator)[:, None] * draw_shape(at, generator)
    rate = np.exp(np.clip(shape, -12.0, 12.0))
    rate /= rate.mean(axis=1, keepdims=True)
    if generator.random() < 0.4:  # what does not vary
        constant = np.exp(generator.normal(0.0, 0.7, n_bands)) if generator.random() < 0.5 else np.ones(n_bands)
        rate += log_uniform(generator, 0.02, 5.0) * constant[:, None]
    counts = rate.reshape(n_bands, -1, _MOMENTS).mean(axis=2) * exposure
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _in_bands(n_bands: int, generator: np.random.Generator) -> Float64s:
    """How strongly a component varies in each band: most often alike, else about so, or in some only."""
    kind = generator.random()
    if kind < 0.6:
        return np.ones(n_bands)
    return generator.normal(1.0, 0.3, n_bands) if kind < 0.85 else (generator.random(n_bands) < 0.6).astype(float)


def _draw_spectrum(generator: np.random.Generator, edges: Float64s) -> tuple[Float64s, Int64s]:
    """Share of the counts in each cell of energy, f8[E], and the band that each cell is in, i8[E].

    One or two of a power law, a black body and bremsstrahlung, absorbed; perhaps a line; times a smooth effective area.
    """
    cell_edges = np.exp(np.linspace(np.log(edges[0]), np.log(edges[-1]), ENERGY_CELLS + 1))
    energy = np.sqrt(cell_edges[1:] * cell_edges[:-1])
    counts = np.zeros(ENERGY_CELLS)
    for _ in range(generator.integers(1, 3)):
        temperature = log_uniform(generator, 0.03, 10.0)
        model = (
            energy ** -generator.uniform(0.0, 4.0),
            energy**2 / np.expm1(np.minimum(energy / temperature, 500.0)),
            np.exp(-np.minimum(energy / temperature, 500.0)) / energy,
        )[generator.integers(3)]
        counts += generator.exponential() * model / model.sum()
    if generator.random() < 0.6:  # photoelectric absorption falls about as E^-2.7; optical depth 1 at this energy
        counts *= np.exp(-((energy / log_uniform(generator, 0.1, 6.0)) ** -2.7))
    counts *= energy * np.exp(-generator.uniform(0.0, 0.6) * np.log(energy / log_uniform(generator, 0.5, 20.0)) ** 2)
    counts = counts / counts.sum() + 1e-4
    if generator.random() < 0.2:
        counts[generator.integers(ENERGY_CELLS)] += log_uniform(generator, 0.01, 1.0) * counts.sum()
    return counts / counts.sum(), np.searchsorted(edges, energy) - 1
