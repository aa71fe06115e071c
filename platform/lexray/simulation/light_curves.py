"""Shapes of light curves at given moments, of every kind of variability: `draw_shape` draws a kind and its parameters.

Each kind is a function of the moments t, f8[T] in seconds, that returns a log-rate but for its level, f8[T]. Its times
are shares of the observation's duration or of its good time, over wide ranges: nothing here is the prior of one
population of sources.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lexray.array_types import Float64s, Int64s
from lexray.simulation.good_time import log_uniform


@dataclass(frozen=True)
class Moments:
    """When a rate is wanted.

    Attributes
    ----------
    t : f8[T]
        Increasing, all within good time, in seconds.
    segment : i8[T]
        Number of the stretch of good time without a larger gap, from 0.
    duration, ontime : float
        Of the observation and of its good time, in seconds.
    """

    t: Float64s
    segment: Int64s
    duration: float
    ontime: float

    def any(self, generator: np.random.Generator) -> float:
        """A moment, most often one that is observed."""
        observed = generator.random() < 0.7
        return float(generator.choice(self.t) if observed else generator.uniform(0.0, self.duration))

    def scale(self, generator: np.random.Generator) -> float:
        """The duration, or the good time."""
        return float(generator.choice([self.duration, self.ontime]))


def _flares(at: Moments, generator: np.random.Generator) -> Float64s:
    rate = np.ones(len(at.t))
    for _ in range(1 + generator.poisson(0.8)):
        rate += _flare(at, generator, log_uniform(generator, 0.005, 0.4) * at.scale(generator))
    return np.log(rate)


def _burst(at: Moments, generator: np.random.Generator) -> Float64s:
    return np.log(1.0 + _flare(at, generator, log_uniform(generator, 0.0015, 0.05) * at.ontime))


def _flare(at: Moments, generator: np.random.Generator, decay: float) -> Float64s:
    """A fast rise and a slower exponential decay, or a Gaussian, to 1.3 to 60 times the quiescent rate."""
    since = at.t - at.any(generator)
    if generator.random() < 0.2:
        shape = np.exp(-0.5 * (since / decay) ** 2)
    else:
        rise = decay * log_uniform(generator, 0.02, 1.0)
        shape = np.exp(np.where(since < 0, since / rise, -since / decay))
    return log_uniform(generator, 0.3, 60.0) * shape


def _dips(at: Moments, generator: np.random.Generator) -> Float64s:
    """One eclipse or dip, or one every period, with ingress and egress."""
    if generator.random() < 0.3:
        period = log_uniform(generator, 0.05, 0.7) * at.duration
        width = generator.uniform(0.03, 0.4) * period
        away = np.abs((at.t - generator.uniform(0.0, period) + period / 2) % period - period / 2)
    else:
        width = log_uniform(generator, 0.01, 0.5) * at.scale(generator)
        away = np.abs(at.t - at.any(generator))
    edge = width * generator.choice([1e-3, 0.1, 0.5]) / 4
    inside = 1 / (1 + np.exp(np.clip((away - width / 2) / edge, -60, 60)))
    return np.asarray(np.log(1.001 - (1 - generator.uniform(0.0, 0.9) ** 2) * inside))


def _sine(at: Moments, generator: np.random.Generator) -> Float64s:
    return np.log(1 + generator.uniform(0.1, 0.98) * np.sin(_phase(at, generator)))


def _pulses(at: Moments, generator: np.random.Generator) -> Float64s:
    share, sharpness = generator.uniform(0.1, 1.0), log_uniform(generator, 1.0, 20.0)
    return np.log(1.01 - share + share * np.exp(sharpness * (np.cos(_phase(at, generator)) - 1)))


def _phase(at: Moments, generator: np.random.Generator) -> Float64s:
    return np.asarray(
        2 * np.pi * (at.t / (log_uniform(generator, 0.008, 2.0) * at.scale(generator)) + generator.random())
    )


def _red_noise(at: Moments, generator: np.random.Generator) -> Float64s:
    """Gaussian noise in the log-rate with a power spectrum f^-0.5 to f^-2.5, drawn as Timmer & König (1995) do."""
    n, periods = int(2 ** generator.integers(4, 9)), generator.choice([1, 1, 3])
    power = np.arange(1, n + 1) ** -generator.uniform(0.5, 2.5)
    amplitude = np.sqrt(generator.exponential(2 * power / power.sum(), n)) * log_uniform(generator, 0.05, 1.2)
    wave = amplitude * np.exp(1j * generator.uniform(0, 2 * np.pi, n))
    noise = np.fft.irfft(np.concatenate([[0.0], wave]), 4 * n) * 2 * n
    # The series repeats itself after all of its length, of which the observation may be a third.
    place = at.t / (at.duration * periods) * 4 * n
    return np.asarray(np.interp(place, np.arange(4 * n + 1), np.append(noise, noise[0])))


def _storm(at: Moments, generator: np.random.Generator) -> Float64s:
    """Flares in clusters above a quiet level, as soft protons make them."""
    noise = _red_noise(at, generator)
    return np.asarray(np.maximum(noise - np.median(noise), 0.0) * generator.uniform(1.0, 4.0))


def _steps(at: Moments, generator: np.random.Generator) -> Float64s:
    shape, size = np.zeros(len(at.t)), generator.choice([0.3, 1.0])
    for _ in range(1 + generator.poisson(0.7)):
        shape += np.where(at.t > at.any(generator), generator.normal(0.0, size), 0.0)
    return shape


def _jumps(at: Moments, generator: np.random.Generator) -> Float64s:
    """Another level after each gap: at random, a random walk, or a few that stand out; in a third with a slope each."""
    n, size = int(at.segment[-1]) + 1, log_uniform(generator, 0.05, 1.5)
    level, kind = generator.normal(0.0, size, n), generator.random()
    if kind < 0.3:
        level = np.cumsum(level) / np.sqrt(n) * generator.uniform(1.0, 2.0)
    elif kind < 0.45:
        level = np.where(generator.random(n) < generator.uniform(0.03, 0.3), 2 * np.abs(level), 0.0)
    if generator.random() < 0.65:
        return level[at.segment]
    first = np.searchsorted(at.segment, np.arange(n))
    last = np.searchsorted(at.segment, np.arange(n), side="right") - 1
    length = np.maximum(at.t[last] - at.t[first], 1e-9)
    way = (at.t - at.t[first][at.segment]) / length[at.segment] - 0.5
    return np.asarray(level[at.segment] + generator.normal(0.0, size, n)[at.segment] * way)


def _two_states(at: Moments, generator: np.random.Generator) -> Float64s:
    switch = np.sort(generator.uniform(0.0, at.duration, int(log_uniform(generator, 2.0, 40.0))))
    return np.asarray((np.searchsorted(switch, at.t) % 2) * generator.normal(0.0, 1.2))


def _decay(at: Moments, generator: np.random.Generator) -> Float64s:
    """An exponential decay or rise, or a power law's decay."""
    elapsed = at.t / (log_uniform(generator, 0.05, 3.0) * at.duration)
    if generator.random() < 0.3:
        return np.asarray(-generator.uniform(0.3, 2.0) * np.log1p(elapsed))
    return np.asarray(elapsed * generator.choice([1.0, -1.0]))


def _trend(at: Moments, generator: np.random.Generator) -> Float64s:
    return np.asarray(np.log(np.maximum(1 + generator.uniform(-0.9, 1.5) * (at.t / at.duration - 0.5), 0.05)))


#: Kinds of variability and how often each is drawn.
KINDS: dict[Callable[[Moments, np.random.Generator], Float64s], float] = {
    _flares: 0.13,
    _burst: 0.04,
    _dips: 0.10,
    _sine: 0.12,
    _pulses: 0.04,
    _red_noise: 0.17,
    _storm: 0.05,
    _steps: 0.09,
    _jumps: 0.13,
    _two_states: 0.05,
    _decay: 0.05,
    _trend: 0.03,
}


def draw_shape(at: Moments, generator: np.random.Generator) -> Float64s:
    """A log-rate of one kind, its mean over the moments 0: f8[T]."""
    kinds = list(KINDS)
    shape = kinds[generator.choice(len(kinds), p=list(KINDS.values()))](at, generator)
    return np.asarray(np.clip(shape - shape.mean(), -8.0, 8.0))
