"""Good times as the missions' observations have them: whole, with gaps, cut into orbits, or full of short losses."""

import numpy as np

from lexray.array_types import Float64s

#: Of an observation, from the first good time to the last, in seconds.
SHORTEST_DURATION, LONGEST_DURATION = 100.0, 250_000.0
#: Of a low orbit, in seconds: NICER, NuSTAR and Swift take 5.5 to 5.8 ks.
_ORBIT = (5_000.0, 6_000.0)
_MOST_ORBITS = 200


def draw_good_times(generator: np.random.Generator) -> tuple[Float64s, Float64s]:
    """Starts and stops f8[G] of good-time intervals in seconds; the first starts at 0."""
    duration = log_uniform(generator, SHORTEST_DURATION, LONGEST_DURATION)
    pattern = generator.choice(4, p=[0.40, 0.20, 0.28, 0.12])
    if pattern == 0:
        return np.zeros(1), np.array([duration])
    if pattern == 1:
        return _with_gaps(generator, duration)
    return _orbits(generator, duration) if pattern == 2 else _with_losses(generator, duration)


def log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform between those of two bounds."""
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _with_gaps(generator: np.random.Generator, duration: float) -> tuple[Float64s, Float64s]:
    """One to five gaps of any length, which take 3 to 60 % of the time."""
    n, lost = generator.integers(1, 6), generator.uniform(0.03, 0.6) * duration
    gap, good = generator.exponential(1.0, n), generator.gamma(2.0, 1.0, n + 1)
    gap, good = gap * lost / gap.sum(), good * (duration - lost) / good.sum()
    start = np.concatenate([[0.0], (good[:-1] + gap).cumsum()])
    return start, start + good


def _orbits(generator: np.random.Generator, duration: float) -> tuple[Float64s, Float64s]:
    """One pass an orbit, of which some or most are missing, in half of the cases cut by short losses."""
    if generator.random() < 0.7:
        period = min(generator.uniform(*_ORBIT), duration / 2)
    else:
        period = log_uniform(generator, 0.002, 0.4) * duration
    orbit = np.arange(int(duration / period))
    seen = generator.random(len(orbit)) < generator.choice([1.0, 0.9, 0.5, 0.2])
    seen[: 2 if seen.sum() < 2 else 1] = True
    orbit = orbit[seen][:_MOST_ORBITS]
    spread = generator.choice([0.05, 0.3, 0.8])
    length = period * generator.uniform(0.03, 0.7) * np.exp(generator.normal(0.0, spread, len(orbit)))
    length = np.clip(length, 1e-4 * period, 0.95 * period)
    start = orbit * period + generator.uniform(0.0, 1.0, len(orbit)) * np.minimum(period - length, 0.2 * period)
    stop = start + length
    if generator.random() < 0.5:
        cuts = [_cut(generator, a, b) for a, b in zip(start, stop, strict=True)]
        start, stop = (np.concatenate(side) for side in zip(*cuts, strict=True))
    return start - start[0], stop - start[0]


def _cut(generator: np.random.Generator, start: float, stop: float) -> tuple[Float64s, Float64s]:
    n = generator.poisson(1.0)
    cut = np.sort(generator.uniform(start, stop, n))
    return _between(start, stop, cut, generator.exponential(0.02, n) * (stop - start))


def _with_losses(generator: np.random.Generator, duration: float) -> tuple[Float64s, Float64s]:
    """20 to 300 losses of one length: readouts, or telemetry that was full."""
    n = int(generator.integers(20, 300))
    lost = np.full(n, log_uniform(generator, 0.001, 0.3) * duration / n)
    return _between(0.0, duration, np.sort(generator.uniform(lost[0], duration, n)), lost)


def _between(start: float, stop: float, cut: Float64s, lost: Float64s) -> tuple[Float64s, Float64s]:
    """What is left of one interval where time is lost after each of `cut`, f8[n]."""
    begin = np.concatenate([[start], np.maximum.accumulate(cut + lost)])
    end = np.concatenate([cut, [stop]])
    left = end > begin + 1e-6 * (stop - start)
    if not left.any():
        return np.array([start]), np.array([stop])
    return begin[left], np.minimum(end, stop)[left]
