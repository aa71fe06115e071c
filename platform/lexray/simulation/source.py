"""Simulated sources: what they are, and what Chandra's ACIS would have recorded of them.

Each source has a generator of its own, made from the archive's seed and the source's index: source 17 is the same in an
archive of 20 sources and of 20,000.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lexray.array_types import Float64s
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.simulation.observation import (
    BAND_ZONES,
    BANDS,
    FRAME_TIME,
    MJDREF,
    SimulatedObservation,
    draw_windows,
    observe,
)
from lexray.simulation.source_classes import SourceClass, class_at
from lexray.simulation.spectra import ENERGY_EDGES, ZONE_EDGES, Spectrum, zone_shares
from lexray.simulation.true_rate import TrueRate
from lexray.simulation.variability import Variation, draw_variation
from lexray.sources import name_from_position

# Irrational steps of the two low-discrepancy sequences that spread classes and positions: every class occurs in any 25
# consecutive sources, and no two right ascensions meet. √2 − 1 and the golden ratio are independent over the integers.
_CLASS_STEP, _POSITION_STEP = 2**0.5 - 1, (5**0.5 - 1) / 2


@dataclass(frozen=True)
class SimulatedSource:
    """A source with everything that is true of it, and its observations.

    Flux and luminosity are those between 0.5 and 7 keV.

    Attributes
    ----------
    index : int
        Place in the archive.
    source_id : str
        IAU-style name from the position.
    source_class : SourceClass
    ra, dec : float
        Degrees, ICRS.
    spectrum : Spectrum
    variation : Variation
    distance : float
        kpc.
    redshift : float
        NaN where there is none.
    flux, luminosity : float
        Mean flux as observed in erg cm⁻² s⁻¹, luminosity corrected for absorption in erg s⁻¹.
    observations : list of SimulatedObservation
    """

    index: int
    source_id: str
    source_class: SourceClass
    ra: float
    dec: float
    spectrum: Spectrum
    variation: Variation
    distance: float
    redshift: float
    flux: float
    luminosity: float
    observations: list[SimulatedObservation]

    def detection_id(self, observation: SimulatedObservation) -> str:
        """Identifier that `ingest` gives the detection."""
        return f"chandra:{observation.obs_id}:acis:{self.source_id}"

    def event_lists(self) -> list[EventList]:
        """The detections as `ingest` reads them from the files: usable events only."""
        return [self._event_list(o) for o in self.observations]

    def _event_list(self, o: SimulatedObservation) -> EventList:
        t_ref = float(o.gti.start[0])
        return EventList(
            detection_id=self.detection_id(o),
            source_id=self.source_id,
            time=o.time[o.usable] - t_ref,
            energy=o.energy[o.usable] / np.float32(1000),
            gti=o.gti.shift(-t_ref),
            bands=BANDS,
            exposure=o.gti.ontime * o.dtcor,
            mission="chandra",
            instrument="acis",
            obs_id=o.obs_id,
            object=self.source_id.removeprefix("LXR "),
            ra=self.ra,
            dec=self.dec,
            t_ref=t_ref,
            t_ref_mjd=MJDREF + t_ref / 86400,
            timesys="TT",
            timeref="local",
            frame_time=FRAME_TIME,
        )

    @cached_property
    def labels(self) -> dict[str, Any]:
        """Row of `labels.parquet` (without `has_literature`); units and meanings in `archive.LABELS`."""
        ontime = np.array([o.gti.ontime for o in self.observations])
        expected = np.array([o.rate.expected[BAND_ZONES] for o in self.observations])
        soft, medium, hard = expected.sum(axis=0) / ontime.sum()
        means = expected.sum(axis=1) / ontime
        return {
            "source_id": self.source_id,
            "class": self.source_class.name,
            "ra": self.ra,
            "dec": self.dec,
            "variability": self.variation.kind,
            "is_variable": self.variation.kind != "steady",
            "hr_ms": (medium - soft) / (medium + soft),
            "hr_hm": (hard - medium) / (hard + medium),
            "hr_hs": (hard - soft) / (hard + soft),
            "rms": self._rms(),
            "rms_between": float(np.std(np.log10(means))) if len(means) > 1 else np.nan,
            "log_rate": float(np.log10(soft + medium + hard)),
            "n_observations": len(self.observations),
            "expected_counts": float(expected.sum()),
            **self.spectrum.parameters(),
            **self.variation.parameters(),
            "distance": self.distance,
            "redshift": self.redshift,
            "log_flux": float(np.log10(self.flux)),
            "log_lx": float(np.log10(self.luminosity)),
        }

    def _rms(self) -> float:
        """Fractional rms of the true rate within the observations, over good time, on the published cells."""
        squares, weight = 0.0, 0.0
        for o in self.observations:
            rate = o.true_rate.sum(axis=0)
            good = o.rate.gti.exposure(np.linspace(0, o.rate.duration, len(rate) + 1))
            mean = np.average(rate, weights=good)
            squares += float(np.sum(good * (rate / mean - 1) ** 2))
            weight += float(np.sum(good))
        # A steady source's is the rounding error of its mean, which as a number to learn spans many decades.
        return round(float(np.sqrt(squares / weight)), 6)


def simulate_source(seed: int, index: int) -> SimulatedSource:
    """One source of the archive of a seed, with its observations.

    Parameters
    ----------
    seed : int
        Not negative.
    index : int
        0, 1, …; the source does not depend on how many others there are.

    Returns
    -------
    SimulatedSource
        `.event_lists()` gives its detections without going through files, `.labels` what is true of it.
    """
    start = np.random.default_rng(seed).random(2)
    # The second number of the key is the purpose: 0 physics and events, 1 words.
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, 0)))
    source_class = class_at((start[0] + index * _CLASS_STEP) % 1.0)
    ra = float(360 * ((start[1] + index * _POSITION_STEP) % 1.0))
    dec = float(np.degrees(np.arcsin(generator.uniform(-1, 1))))

    spectrum = source_class.spectrum(generator)
    counts, absorbed, unabsorbed = spectrum.counts()
    shares = zone_shares(counts)
    windows = draw_windows(generator, int(generator.choice([1, 2, 3], p=[0.4, 0.35, 0.25])))
    variation = draw_variation(source_class, min(gti.stop[-1] for _, gti in windows), generator)
    shapes = variation.shapes([start for start, _ in windows], [gti for _, gti in windows], generator)
    between = 10 ** generator.normal(0.0, source_class.between_dex, len(windows))

    # The base level gives the drawn counts an observation on average; a pulse has mean one and is left out of this.
    counts_wanted = source_class.draw_counts(generator) * len(windows)
    base = counts_wanted / sum(
        factor * float(shares[BAND_ZONES] @ _good_mean(shape, gti)[BAND_ZONES]) * gti.ontime
        for (shape, _), factor, (_, gti) in zip(shapes, between, windows, strict=True)
    )
    flat = np.diff(ENERGY_EDGES) / (ZONE_EDGES[4] - ZONE_EDGES[1])

    observations = []
    for number, ((shape, pulse), factor, (t_ref, gti)) in enumerate(zip(shapes, between, windows, strict=True)):
        background = 10 ** generator.uniform(-5.3, -4.4)  # ct/s between 0.5 and 7 keV
        from_source, from_sky = base * factor * shares, background * zone_shares(flat)
        # Sources that pulsate are otherwise constant, so the background dilutes their pulse by one number a zone.
        seen = None if pulse is None else pulse.diluted(from_source / (from_source + from_sky))
        rate = TrueRate(from_source[:, None] * shape + from_sky[:, None], gti, seen)
        # Within a zone all events share one spectrum, the mean one of source and background.
        mixture = base * factor * counts + background * flat
        observations.append(observe(str(900_000 + 4 * index + number), t_ref, rate, mixture, (ra, dec), generator))

    mean_rate = counts_wanted / sum(o.gti.ontime * o.dtcor for o in observations)
    distance, redshift = source_class.draw_distance(generator)
    return SimulatedSource(
        index=index,
        source_id=f"LXR {name_from_position(ra, dec)}",
        source_class=source_class,
        ra=ra,
        dec=dec,
        spectrum=spectrum,
        variation=variation,
        distance=distance,
        redshift=redshift,
        flux=mean_rate * absorbed,
        luminosity=4 * np.pi * (distance * 3.0857e21) ** 2 * mean_rate * unabsorbed,
        observations=observations,
    )


def _good_mean(shape: Float64s, gti: GoodTimeIntervals) -> Float64s:
    """Mean over the good time of each zone's shape, f8[Z]."""
    good = gti.exposure(np.linspace(0.0, gti.stop[-1], shape.shape[1] + 1))
    return np.asarray(shape @ good / good.sum())
