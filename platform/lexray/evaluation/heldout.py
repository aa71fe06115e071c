"""The yardstick of reconstruction: how well a rate fitted to 80 % of the photons predicts the other 20 %.

Thinning a Poisson process at random gives two *independent* Poisson processes of the same shape, so the second part
judges what was fitted to the first without any overlap. The score is the Poisson process log-likelihood

    ln L = Σ_j ln λ(t_j, b_j) − Σ_b ∫_GTI λ_b(t) dt

and the gain of a model is what it adds to a constant rate a band, in bits per held-out photon.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lexray.array_types import Float64s
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.sources import stable_hash

#: Share of the photons that models are fitted to.
FIT_FRACTION = 0.8
#: From the rate of the fitted photons to that of the held-out ones: 20/80.
HELD_OUT_SCALE = (1 - FIT_FRACTION) / FIT_FRACTION


@dataclass(frozen=True)
class PiecewiseRate:
    """A count rate by band, constant within each cell of time.

    Parameters
    ----------
    edges : f8[C + 1]
        Increasing, in seconds since the detection's `t_ref`; they enclose its events.
    rate : f8[B, C]
        Counts a second of *good* time; what it is in a gap does not matter.

    Raises
    ------
    ValueError
        If shapes do not fit, edges do not increase, or a rate is negative or not finite.
    """

    edges: Float64s
    rate: Float64s

    def __post_init__(self) -> None:
        if self.rate.ndim != 2 or self.edges.shape != (self.rate.shape[1] + 1,):
            raise ValueError(f"edges [C + 1] and rate [B, C] do not fit: {self.edges.shape} and {self.rate.shape}")
        if not np.all(np.diff(self.edges) > 0):
            raise ValueError("the cells' edges must increase")
        if not np.all(self.rate >= 0) or not np.all(np.isfinite(self.rate)):
            raise ValueError("rates must be finite and not negative")

    @classmethod
    def from_samples(cls, t: ArrayLike, rate: ArrayLike, duration: float, floor: float = 1e-3) -> "PiecewiseRate":
        """Cells around samples of a rate, such as a simulator's truth.

        Parameters
        ----------
        t : f8[C]
            Seconds, increasing; cells end midway between two samples, the outermost at 0 and `duration`.
        rate : f8[B, C]
            Counts a second.
        duration : float
            Seconds.
        floor : float
            Share of a band's mean below which no cell falls: a total eclipse may begin within a cell, and a photon
            there must not make the likelihood zero.
        """
        times, values = np.asarray(t, dtype=np.float64), np.atleast_2d(np.asarray(rate, dtype=np.float64))
        middle = (times[:-1] + times[1:]) / 2
        edges = np.concatenate([[min(0.0, float(times[0]))], middle, [max(duration, float(times[-1]))]])
        return cls(edges, np.maximum(values, floor * values.mean(axis=1, keepdims=True)))

    def scaled(self, factor: float) -> "PiecewiseRate":
        """The rate times `factor`."""
        return PiecewiseRate(self.edges, self.rate * factor)

    def expected(self, gti: GoodTimeIntervals) -> Float64s:
        """∫ λ_b dt over the good time, expected counts f8[B]."""
        return np.asarray(self.rate @ gti.exposure(self.edges))

    def at_level(self, counts: ArrayLike, gti: GoodTimeIntervals) -> "PiecewiseRate":
        """The same shape, with the level that every model gets: n_b + ½ expected counts in band b.

        That is the posterior mean of a Poisson level under Jeffreys' prior. With one rule for all, a gain compares
        shapes and nothing else, and a band without photons keeps a finite logarithm.
        """
        expected = self.expected(gti)
        if np.any(expected <= 0):
            raise ValueError("a band expects no counts in the good time: its shape has no level")
        return PiecewiseRate(self.edges, self.rate * ((np.asarray(counts) + 0.5) / expected)[:, None])

    def log_likelihood(self, events: EventList) -> float:
        """Poisson process log-likelihood of a detection, in nats.

        Raises
        ------
        ValueError
            If an event lies outside the cells, or the bands differ in number.
        """
        if self.rate.shape[0] != len(events.bands):
            raise ValueError(f"{events.detection_id}: {len(events.bands)} bands, the rate has {self.rate.shape[0]}")
        slack = 1e-6 * (self.edges[-1] - self.edges[0])
        if len(events) and (events.time[0] < self.edges[0] - slack or events.time[-1] > self.edges[-1] + slack):
            raise ValueError(f"{events.detection_id}: events lie outside the cells of the rate")
        cell = np.clip(np.searchsorted(self.edges, events.time, side="right") - 1, 0, self.rate.shape[1] - 1)
        with np.errstate(divide="ignore"):  # a photon where the rate is zero: −∞, rightly
            at_photons = np.log(self.rate[events.band, cell])
        return float(at_photons.sum() - self.expected(events.gti).sum())


def counts_per_band(events: EventList) -> NDArray[np.int64]:
    """Photons in each band, i8[B]."""
    return np.bincount(events.band[events.band >= 0], minlength=len(events.bands)).astype(np.int64)


def thin(events: EventList, seed: int = 0) -> tuple[EventList, EventList]:
    """Split a detection's photons at random: 80 % to fit, 20 % held out.

    The generator is seeded by the detection's name, so that the split does not depend on which detections come before
    it, on how many workers there are, or on the part that they work on. A background region is left out of both parts:
    what is predicted are all photons of the source's region, by every model alike.
    """
    generator = np.random.default_rng([seed, stable_hash(events.detection_id, "thin")])
    fit = generator.random(len(events)) < FIT_FRACTION
    return (
        replace(events, time=events.time[fit], energy=events.energy[fit], background=None),
        replace(events, time=events.time[~fit], energy=events.energy[~fit], background=None),
    )


def score(rate: PiecewiseRate, fit: EventList, held_out: EventList) -> float:
    """Log-likelihood in nats of the held-out photons under a shape that was fitted to the others."""
    return rate.at_level(counts_per_band(fit), fit.gti).scaled(HELD_OUT_SCALE).log_likelihood(held_out)


def gain(model: ArrayLike, constant: ArrayLike, n_held: ArrayLike) -> float:
    """Held-out gain in bits per photon over all detections.

    Parameters
    ----------
    model, constant : f8[N]
        Log-likelihoods in nats of each detection's held-out photons (`score`).
    n_held : i8[N]
        How many photons were held out of each.
    """
    photons = np.sum(n_held)
    return float(np.sum(np.asarray(model) - np.asarray(constant)) / photons / np.log(2)) if photons else 0.0


def gain_interval(
    model: ArrayLike, constant: ArrayLike, n_held: ArrayLike, groups: ArrayLike, seed: int = 0, n_bootstrap: int = 1000
) -> tuple[float, float]:
    """95 % interval of `gain` by resampling *sources*, since a source's detections are not independent.

    Parameters
    ----------
    model, constant, n_held : [N]
        As for `gain`.
    groups : [N]
        Source of each detection.
    seed, n_bootstrap : int
        Of the bootstrap.
    """
    _, inverse = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    n = int(inverse.max()) + 1 if len(inverse) else 0
    if n == 0:
        return 0.0, 0.0
    difference = np.bincount(inverse, np.asarray(model) - np.asarray(constant), minlength=n)
    photons = np.bincount(inverse, np.asarray(n_held), minlength=n)
    weight = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    return interval_95((weight @ difference) / np.maximum(weight @ photons, 1) / np.log(2))


def interval_95(draws: ArrayLike) -> tuple[float, float]:
    """Bounds of the middle 95 % of bootstrap draws."""
    low, high = np.percentile(np.asarray(draws, dtype=np.float64), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class DetectionScore:
    """How well one detection's held-out photons are predicted.

    Attributes
    ----------
    detection_id, source_id : str
    n_events, n_held : int
        Photons in all, and of them held out.
    log_likelihood : dict of str to float
        Of the held-out photons, in nats, by model; a model that had no rate for this detection is absent.
    """

    detection_id: str
    source_id: str
    n_events: int
    n_held: int
    log_likelihood: dict[str, float]


#: From detections, thinned to the photons to fit, to a rate of each; None where it has none.
RateModel = Callable[[Sequence[EventList]], Sequence[PiecewiseRate | None]]


def score_models(
    events: Sequence[EventList],
    models: Mapping[str, RateModel],
    models_with_level: Mapping[str, RateModel] | None = None,
    seed: int = 0,
) -> list[DetectionScore]:
    """Thin detections, fit each model to one part and score it on the other.

    Parameters
    ----------
    events : sequence of EventList, length N
        All their photons.
    models : mapping
        Name to model; each sees only the photons to fit, and all get the same rule for the level.
    models_with_level : mapping, optional
        Name to a model of the rate of *all* photons, whose level is known as well and is not fitted.
    seed : int
        Of the thinning.
    """
    pairs = [thin(e, seed) for e in events]
    fits = [fit for fit, _ in pairs]
    rates_by_model = {name: model(fits) for name, model in models.items()}
    rates_with_level = {name: model(fits) for name, model in (models_with_level or {}).items()}
    scores = []
    for i, (fit, held) in enumerate(pairs):
        log_likelihoods = {
            name: score(rate, fit, held) for name, rates in rates_by_model.items() if (rate := rates[i]) is not None
        }
        log_likelihoods |= {
            name: rate.scaled(1 - FIT_FRACTION).log_likelihood(held)
            for name, rates in rates_with_level.items()
            if (rate := rates[i]) is not None
        }
        scores.append(DetectionScore(fit.detection_id, fit.source_id, len(fit) + len(held), len(held), log_likelihoods))
    return scores
