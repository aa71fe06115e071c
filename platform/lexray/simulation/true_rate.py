"""True rates of simulated sources: what varies, how, and photons drawn from it without approximation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lexray.array_types import Float64s
from lexray.events.eventlist import GoodTimeIntervals

#: Cells of a detection on which a rate's level is constant, and those of the published true rate: 8 of the former each.
FINE_CELLS, CELLS = 2048, 256
#: Harmonics of red noise.
HARMONICS = 19


@dataclass(frozen=True)
class Pulse:
    """A periodic factor 1 + Σ_h a_h cos(h ω t + φ_h) of mean one, integrated in closed form.

    Attributes
    ----------
    period : float
        Seconds.
    amplitude : f8[Z, H]
        By energy zone and harmonic; a zone's sum is below one, so that the factor stays positive.
    phase : f8[H]
        Radians at t = 0.
    """

    period: float
    amplitude: Float64s
    phase: Float64s

    def factor(self, zone: NDArray[np.integer], time: Float64s) -> Float64s:
        """Value at each event's zone and time, f8[N]."""
        return np.asarray(1 + np.sum(self.amplitude[zone].T * np.cos(self._angle(time)), axis=0))

    def bound(self) -> Float64s:
        """Upper bound of each zone's factor, f8[Z]."""
        return np.asarray(1 + np.sum(self.amplitude, axis=1))

    def primitive(self, time: Float64s) -> Float64s:
        """Antiderivative of each zone's factor, f8[Z, T]."""
        omega = 2 * np.pi * np.arange(1, len(self.phase) + 1) / self.period
        return np.asarray(time + (self.amplitude / omega) @ np.sin(self._angle(time)))

    def diluted(self, share: Float64s) -> "Pulse":
        """The pulse of a rate of which only `share` (f8[Z]) pulsates."""
        return Pulse(self.period, self.amplitude * share[:, None], self.phase)

    def _angle(self, time: Float64s) -> Float64s:
        return np.arange(1, len(self.phase) + 1)[:, None] * (2 * np.pi / self.period) * time + self.phase[:, None]


class TrueRate:
    """Rate of a detection by energy zone: levels on fine cells, constant in each, times a pulse.

    Parameters
    ----------
    level : f8[Z, FINE_CELLS]
        ct/s of good time, on equal cells over [0, end of the last good time].
    gti : GoodTimeIntervals
        Seconds since the first good time.
    pulse : Pulse, optional
    """

    def __init__(self, level: Float64s, gti: GoodTimeIntervals, pulse: Pulse | None = None) -> None:
        self.gti = gti
        self.pulse = pulse
        self.duration = float(gti.stop[-1])
        self._level = level
        edges = np.unique(np.concatenate([np.linspace(0.0, self.duration, FINE_CELLS + 1), gti.start, gti.stop]))
        self._edges = edges
        middle = (edges[:-1] + edges[1:]) / 2
        self._cell = np.minimum((middle / self.duration * FINE_CELLS).astype(np.int64), FINE_CELLS - 1)
        self._good = gti.contains(middle)
        # Expected counts of each segment between edges, [Z, S]: as if all time were good, and in good time.
        pulse_time = edges[None, :] if pulse is None else pulse.primitive(edges)
        self._all = level[:, self._cell] * np.diff(pulse_time, axis=1)
        self._expected = self._all * self._good

    @property
    def expected(self) -> Float64s:
        """Expected counts of each zone in good time, f8[Z]."""
        return np.asarray(np.sum(self._expected, axis=1))

    def cells(self, n: int = CELLS) -> Float64s:
        """Mean rate in `n` equal cells, f8[Z, n] ct/s.

        The mean is over the cell's good time, so that rate × good time is the expected count exactly; over all of the
        cell where none of its time is good. `n` divides `FINE_CELLS`.
        """
        coarse = self._cell // (FINE_CELLS // n)
        length = np.diff(self._edges)

        def total(values: Float64s) -> Float64s:
            return np.stack([np.bincount(coarse, weights=row, minlength=n) for row in np.atleast_2d(values)])

        good_time = total(length * self._good)
        seen = good_time > 0
        mean = total(self._all) / total(length)
        return np.asarray(np.where(seen, total(self._expected) / np.where(seen, good_time, 1.0), mean))

    def draw(self, generator: np.random.Generator) -> tuple[Float64s, NDArray[np.int64]]:
        """Events of the inhomogeneous Poisson process, exactly.

        Candidates come from the levels by inversion of their cumulative; a pulse thins them (Lewis & Shedler 1979).

        Returns
        -------
        time : f8[N]
            Seconds since the first good time, sorted, all in good time.
        zone : i8[N]
        """
        length = np.diff(self._edges) * self._good
        bound = np.ones(len(self._level)) if self.pulse is None else self.pulse.bound()
        weight = np.cumsum((self._level[:, self._cell] * length * bound[:, None]).ravel())
        n = generator.poisson(weight[-1])
        flat = np.searchsorted(weight, generator.random(n) * weight[-1], side="right")
        zone, segment = np.divmod(np.minimum(flat, len(weight) - 1), len(length))
        time = self._edges[segment] + generator.random(n) * length[segment]
        if self.pulse is not None:
            kept = generator.random(n) * bound[zone] < self.pulse.factor(zone, time)
            time, zone = time[kept], zone[kept]
        order = np.argsort(time, kind="stable")
        return time[order], zone[order]


def cell_centres(duration: float) -> Float64s:
    """Centres of the fine cells, f8[FINE_CELLS] s."""
    return np.asarray((np.arange(FINE_CELLS) + 0.5) * (duration / FINE_CELLS))


def flare(time: Float64s, peak_time: float, rise: float, decay: float, amplitude: Float64s) -> Float64s:
    """Flare on a level of one: linear rise over `rise` seconds, then an exponential decay.

    Parameters
    ----------
    time : f8[K]
        Seconds.
    peak_time, rise, decay : float
        Seconds.
    amplitude : f8[Z]
        Height over the level, by zone.

    Returns
    -------
    f8[Z, K]
        What the flare adds.
    """
    before = np.clip(1 + (time - peak_time) / rise, 0.0, 1.0)
    after = np.exp(-np.clip(time - peak_time, 0.0, None) / decay)
    return np.asarray(amplitude[:, None] * np.where(time < peak_time, before, after))


def dips(time: Float64s, middle: float, period: float, width: float, depth: Float64s) -> Float64s:
    """Factor of recurring box-shaped dips or eclipses, f8[Z, K].

    Parameters
    ----------
    time : f8[K]
        Seconds.
    middle : float
        Middle of one of them, s.
    period, width : float
        Seconds.
    depth : f8[Z]
        Share of the flux that is lost, by zone.
    """
    distance = np.abs((time - middle + period / 2) % period - period / 2)
    return np.asarray(1 - depth[:, None] * (distance < width / 2))


def red_noise(time: Float64s, span: float, rms: float, generator: np.random.Generator) -> Float64s:
    """Factor exp(Σ a_j sin(2π j t / span + φ_j)) with amplitudes falling as 1/j, f8[K].

    Parameters
    ----------
    time : f8[K]
        Seconds.
    span : float
        Seconds; longer than the observation, so that the first harmonic is a trend.
    rms : float
        Standard deviation of the natural logarithm of the rate.
    generator : numpy.random.Generator
        Draws the amplitudes and phases.
    """
    j = np.arange(1, HARMONICS + 1)
    amplitude = generator.rayleigh(1.0, HARMONICS) / j
    amplitude *= rms / np.sqrt(np.sum(amplitude**2) / 2)
    phase = generator.uniform(0, 2 * np.pi, HARMONICS)
    # The harmonics are smooth: 512 points resolve the nineteenth 27 times, and the fine cells take their neighbours'.
    coarse = np.linspace(time[0], time[-1], 512)
    log_rate = amplitude @ np.sin(2 * np.pi * j[:, None] * coarse / span + phase[:, None])
    return np.asarray(np.exp(np.interp(time, coarse, log_rate)))
