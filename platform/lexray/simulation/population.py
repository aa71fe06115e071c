"""The eight types of variability on which reconstructions are compared: a simulator of whole populations at once.

Unlike `lexray simulate`, which makes files that a telescope might have written, this draws thousands of sources in a
second, with rates known exactly, for measurements that need thousands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lexray.array_types import Float64s, Int64s
from lexray.evaluation.heldout import PiecewiseRate
from lexray.events.eventlist import Bands, EventList, GoodTimeIntervals
from lexray.models.autodecoders.photons import BackgroundPhotons, Photons

LIGHT_CURVE_TYPES = ("steady", "flare", "eclipse", "periodic", "red_noise", "step", "two_flares", "decay")
BANDS = Bands((0.5, 1.2, 2.0, 7.0))
#: Seconds from the first good time's start to the last one's stop.
DURATION = 28_800.0
#: Cells of a true rate, which is constant within each.
CELLS = 2048
#: Of the expected counts within good time, in all bands.
MEDIAN_COUNTS, SIGMA_LN_COUNTS = 300.0, 0.7
#: Share of the sources that have gaps, how many gaps at most, and the share of the time that these take.
WITH_GAPS, MOST_GAPS, GAP_SHARE = 1 / 3, 4, (0.05, 0.40)
_edges = np.linspace(0.0, DURATION, CELLS + 1)
_centres = (_edges[:-1] + _edges[1:]) / 2
_HARMONICS = np.arange(1, 20)


@dataclass(frozen=True)
class SimulatedPopulation:
    """N simulated detections and the rates that they were drawn from.

    The rate of band b at time t is ``level · share[b] · exp(log_rate(t))``, the same shape in all bands.

    Attributes
    ----------
    photons : Photons
        In three bands (`BANDS`), of 28.8 ks each.
    light_curve_type : i8[N]
        Place in `LIGHT_CURVE_TYPES`.
    log_rate : f4[N, CELLS]
        Log of the true relative rate in equal cells of the observation, gaps included.
    level : f8[N]
        Counts a second, all bands together, where `log_rate` is 0.
    share : f8[N, 3]
        Of each band; they add up to 1.
    seed : int
    """

    photons: Photons
    light_curve_type: Int64s
    log_rate: NDArray[np.float32]
    level: Float64s
    share: Float64s
    seed: int

    def __len__(self) -> int:
        return len(self.light_curve_type)

    def select(self, rows: Sequence[int] | Int64s) -> "SimulatedPopulation":
        """The detections `rows`, in that order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return SimulatedPopulation(
            self.photons.select(torch.from_numpy(chosen)),
            self.light_curve_type[chosen],
            self.log_rate[chosen],
            self.level[chosen],
            self.share[chosen],
            self.seed,
        )

    def rate(self, row: int) -> PiecewiseRate:
        """True rate of one detection, counts a second in each band."""
        shape = np.exp(self.log_rate[row].astype(np.float64))
        return PiecewiseRate(_edges, self.level[row] * self.share[row][:, None] * shape)

    def event_lists(self) -> list[EventList]:
        """The detections one by one, without background; each is a source of its own."""
        photons = self.photons
        time, energy = photons.time.numpy(), photons.energy.numpy()
        begin, end = photons.gti_start.numpy(), photons.gti_stop.numpy()
        first, interval = photons.offsets.tolist(), photons.gti_offsets.tolist()
        exposure = [ontime * live for ontime, live in zip(photons.ontime.tolist(), photons.live.tolist(), strict=True)]
        lists = []
        for i, k in enumerate(self.light_curve_type):
            name = f"sim:{self.seed}:{LIGHT_CURVE_TYPES[k]}:{i}"
            mine, open_ = slice(first[i], first[i + 1]), slice(interval[i], interval[i + 1])
            gti = GoodTimeIntervals(begin[open_], end[open_])
            lists.append(EventList(name, name, time[mine], energy[mine], gti, BANDS, exposure[i]))
        return lists


def simulate(n: int, seed: int, spread: float = SIGMA_LN_COUNTS) -> SimulatedPopulation:
    """Draw `n` detections, the eight types of light curve in equal shares.

    Parameters
    ----------
    n : int
    seed : int
        Every draw is made for all sources at once, so a source depends on `n` as well.
    spread : float
        Standard deviation of ln(expected counts).
    """
    generator = np.random.default_rng(seed)
    light_curve_type = generator.permutation(np.arange(n) % len(LIGHT_CURVE_TYPES))
    shape = np.ones((n, CELLS))
    # A steady source's shape stays at one.
    draws = (_flare, _eclipse, _periodic, _red_noise, _step, _two_flares, _decay)
    for number, draw in enumerate(draws, start=LIGHT_CURVE_TYPES.index("flare")):
        rows = np.flatnonzero(light_curve_type == number)
        shape[rows] = draw(len(rows), generator)
    counts = np.exp(generator.normal(np.log(MEDIAN_COUNTS), spread, n))
    share = generator.dirichlet(np.ones(len(BANDS)), n)
    start, stop, offsets = _good_times(n, generator)

    until = np.concatenate([np.zeros((n, 1)), shape.cumsum(axis=1)], axis=1) * (DURATION / CELLS)
    owner = np.repeat(np.arange(n), np.diff(offsets))
    good = np.bincount(owner, _at(until, owner, stop) - _at(until, owner, start), minlength=n)
    level = counts / good
    photons = _draw_photons(until, level, share, start, stop, offsets, generator)
    return SimulatedPopulation(photons, light_curve_type, np.log(shape).astype(np.float32), level, share, seed)


def _at(until: Float64s, owner: Int64s, time: Float64s) -> Float64s:
    """∫ shape dt from 0 to each `time`, where `until`, f8[N, CELLS + 1], holds it at the cells' edges."""
    position = time / (DURATION / CELLS)
    cell = np.clip(position.astype(np.int64), 0, CELLS - 1)
    below = until[owner, cell]
    return np.asarray(below + (position - cell) * (until[owner, cell + 1] - below))


def _draw_photons(
    until: Float64s,
    level: Float64s,
    share: Float64s,
    start: Float64s,
    stop: Float64s,
    offsets: Int64s,
    generator: np.random.Generator,
) -> Photons:
    """Photons over the whole observation by inversion of the integrated rate; those in gaps are dropped."""
    n = len(level)
    number = generator.poisson(level * until[:, -1])
    owner = np.repeat(np.arange(n), number)
    # One search for all sources: source i's integral, scaled to 0 … 1, is raised by i.
    ladder = (until / until[:, -1:] + np.arange(n)[:, None]).ravel()
    aim = np.sort(generator.random(len(owner)) + owner)
    step = np.clip(np.searchsorted(ladder, aim, side="right") - 1, owner * (CELLS + 1), owner * (CELLS + 1) + CELLS - 1)
    inside = np.clip((aim - ladder[step]) / (ladder[step + 1] - ladder[step]), 0.0, 1.0)
    time = (step - owner * (CELLS + 1) + inside) * (DURATION / CELLS)

    gti_owner = np.repeat(np.arange(n), np.diff(offsets))
    interval = np.searchsorted(gti_owner * DURATION + start, owner * DURATION + time, side="right") - 1
    seen = time <= stop[interval]
    owner, time = owner[seen], time[seen]
    below = np.cumsum(share, axis=1)[owner, :-1]
    band = (generator.random(len(owner))[:, None] >= below).sum(axis=1)
    low, high = np.log(BANDS.edges[:-1])[band], np.log(BANDS.edges[1:])[band]
    energy = np.exp(generator.uniform(low, high)).astype(np.float32)
    # In float32 an energy can come to lie on its band's upper edge, which belongs to the next band.
    edges = np.array(BANDS.edges, dtype=np.float32)
    energy = np.clip(energy, edges[band], np.nextafter(edges[band + 1], np.float32(0)))
    photon_offsets = np.concatenate([[0], np.bincount(owner, minlength=n).cumsum()]).astype(np.int64)
    return Photons(
        time=torch.from_numpy(time),
        band=torch.from_numpy(band),
        offsets=torch.from_numpy(photon_offsets),
        gti_start=torch.from_numpy(start),
        gti_stop=torch.from_numpy(stop),
        gti_offsets=torch.from_numpy(offsets),
        energy=torch.from_numpy(energy),
        energy_range=torch.tensor([BANDS.edges[0], BANDS.edges[-1]]).expand(n, 2).clone(),
        live=torch.ones(n),
        area=torch.full((n, len(BANDS)), torch.nan),
        frame_time=torch.full((n,), torch.nan),
        background=BackgroundPhotons.none(n),
        n_bands=len(BANDS),
    )


def _good_times(n: int, generator: np.random.Generator) -> tuple[Float64s, Float64s, Int64s]:
    """Good-time intervals of `n` sources: starts and stops f8[G], offsets i8[N + 1]. Gaps lie inside."""
    n_gaps = np.where(generator.random(n) < WITH_GAPS, generator.integers(1, MOST_GAPS + 1, n), 0)
    gap = generator.exponential(1.0, (n, MOST_GAPS)) * (np.arange(MOST_GAPS) < n_gaps[:, None])
    good = generator.gamma(2.0, 1.0, (n, MOST_GAPS + 1)) * (np.arange(MOST_GAPS + 1) <= n_gaps[:, None])
    lost = np.where(n_gaps > 0, generator.uniform(*GAP_SHARE, n), 0.0) * DURATION
    gap *= (lost / np.maximum(gap.sum(axis=1), 1e-300))[:, None]
    good *= ((DURATION - lost) / good.sum(axis=1))[:, None]
    stop = good.cumsum(axis=1) + np.concatenate([np.zeros((n, 1)), gap.cumsum(axis=1)], axis=1)
    start = stop - good
    start[:, 0] = 0.0
    stop[np.arange(n), n_gaps] = DURATION
    real = np.arange(MOST_GAPS + 1) <= n_gaps[:, None]
    return start[real], stop[real], np.concatenate([[0], (n_gaps + 1).cumsum()]).astype(np.int64)


def _flare(n: int, generator: np.random.Generator) -> Float64s:
    return 1 + _flare_light(n, generator)


def _two_flares(n: int, generator: np.random.Generator) -> Float64s:
    return 1 + _flare_light(n, generator) + _flare_light(n, generator)


def _flare_light(n: int, generator: np.random.Generator) -> Float64s:
    """An exponential rise to 2–19 times the quiescent rate, and a decay that lasts 600–3,000 s and ten times longer."""
    above = _log_uniform(generator, 3, 20, n) - 1
    decay = _log_uniform(generator, 600, 3000, n)
    since = _centres - generator.uniform(0, DURATION, n)[:, None]
    rise = decay / 10
    return np.asarray(above[:, None] * np.exp(np.where(since < 0, since / rise[:, None], -since / decay[:, None])))


def _eclipse(n: int, generator: np.random.Generator) -> Float64s:
    """A box in which 0–30 % of the rate is left, for 5–25 % of the observation."""
    width = generator.uniform(0.05, 0.25, n) * DURATION
    begin = generator.uniform(0, DURATION - width)
    left = generator.uniform(0, 0.3, n)
    inside = (_centres >= begin[:, None]) & (_centres < (begin + width)[:, None])
    return np.asarray(np.where(inside, left[:, None], 1.0))


def _periodic(n: int, generator: np.random.Generator) -> Float64s:
    """A sinusoid of 5–30 % of the observation's length and an amplitude of 0.4–0.95."""
    period = generator.uniform(0.05, 0.30, n) * DURATION
    amplitude, phase = generator.uniform(0.4, 0.95, n), generator.uniform(0, 2 * np.pi, n)
    return np.asarray(1 + amplitude[:, None] * np.sin(2 * np.pi * _centres / period[:, None] + phase[:, None]))


def _red_noise(n: int, generator: np.random.Generator) -> Float64s:
    """19 harmonics of the observation's length in the log-rate, with sines and cosines of σ = 0.5 falling as 1/f."""
    angle = 2 * np.pi * _HARMONICS[:, None] * _centres / DURATION
    cosine, sine = generator.normal(0.0, 0.5 / _HARMONICS, (2, n, len(_HARMONICS)))
    return np.asarray(np.exp(cosine @ np.cos(angle) + sine @ np.sin(angle)))


def _step(n: int, generator: np.random.Generator) -> Float64s:
    """A jump by a factor of 0.2–5."""
    when, factor = generator.uniform(0.1, 0.9, n) * DURATION, _log_uniform(generator, 0.2, 5, n)
    return np.asarray(np.where(_centres < when[:, None], 1.0, factor[:, None]))


def _decay(n: int, generator: np.random.Generator) -> Float64s:
    """An exponential decay whose e-folding time is 10–100 % of the observation."""
    return np.asarray(np.exp(-_centres / (_log_uniform(generator, 0.1, 1.0, n)[:, None] * DURATION)))


def _log_uniform(generator: np.random.Generator, low: float, high: float, n: int) -> Float64s:
    return np.asarray(np.exp(generator.uniform(np.log(low), np.log(high), n)))
