"""Kinds of variability that a simulated source shows, and their parameters."""

from dataclasses import dataclass, fields

import numpy as np

from lexray.array_types import Float64s
from lexray.events.eventlist import GoodTimeIntervals
from lexray.simulation.source_classes import SourceClass, log_normal
from lexray.simulation.true_rate import Pulse, cell_centres, dips, flare, red_noise

_ZONES = 5
# Relative strength of a flare and of a dip by zone, soft to hard: flares are hotter than what they rise from, and what
# passes before a source takes the soft photons first.
_FLARE_TILT = np.array([0.75, 0.80, 1.00, 1.30, 1.40])
_DIP_TILT = np.array([1.00, 1.00, 0.88, 0.62, 0.50])


@dataclass(frozen=True)
class Variation:
    """What varies within the observations of a source; NaN where a number does not apply.

    Attributes
    ----------
    kind : str
        'steady', 'flare', 'dip', 'eclipse', 'periodic' or 'red_noise'.
    amplitude : float
        Of a flare its peak over the level, of a dip or eclipse the share of the flux it takes in the soft band, of a
        period the half amplitude, of red noise the standard deviation of the log-rate.
    period : float
        Seconds; of a dip or an eclipse the time between two.
    timescale : float
        Seconds: a flare's e-folding decay, a dip's width.
    relative_timescale : float
        The timescale, else the period, over the shortest observation's length.
    tilt : float
        Modulation of the soft over that of the hard band.
    """

    kind: str
    amplitude: float = np.nan
    period: float = np.nan
    timescale: float = np.nan
    relative_timescale: float = np.nan
    tilt: float = np.nan

    def parameters(self) -> dict[str, float]:
        """Every number by name."""
        return {f.name: float(getattr(self, f.name)) for f in fields(self) if f.name != "kind"}

    def shapes(
        self, starts: list[float], windows: list[GoodTimeIntervals], generator: np.random.Generator
    ) -> list[tuple[Float64s, Pulse | None]]:
        """Shape of each observation on the fine cells, f8[5, FINE_CELLS], and its pulse.

        Parameters
        ----------
        starts : list of float
            First good time of each observation on one clock, so that periods keep their phase.
        windows : list of GoodTimeIntervals
            Good time of each, since its start.
        generator : numpy.random.Generator
            Draws phases, and when flares rise.
        """
        phase = float(generator.uniform(0, 2 * np.pi))
        must = int(generator.integers(len(starts)))  # this observation shows a flare whatever the dice say
        # A dip's middle lies in good time of the first observation.
        first = windows[0]
        longest = int(np.argmax(first.stop - first.start))
        middle = starts[0] + float(generator.uniform(first.start[longest], first.stop[longest]))
        made: list[tuple[Float64s, Pulse | None]] = []
        for number, (start, gti) in enumerate(zip(starts, windows, strict=True)):
            duration = float(gti.stop[-1])
            time = cell_centres(duration)
            shape = np.ones((_ZONES, len(time)))
            pulse = None
            if self.kind == "flare":
                n = 1 + generator.poisson(0.4) if number == must or generator.random() < 0.7 else 0
                for _ in range(n):
                    shape = shape + self._flare(time, gti, generator)
            elif self.kind in ("dip", "eclipse"):
                tilt = _DIP_TILT if self.kind == "dip" else np.ones(_ZONES)
                shape = dips(time, middle - start, self.period, self.timescale, self.amplitude * tilt)
            elif self.kind == "red_noise":
                noise = red_noise(time, 1.3 * duration, self.amplitude, generator)
                shape = noise ** self._by_zone()[:, None]
            elif self.kind == "periodic":
                pulse = self._pulse(phase, start - starts[0])
            made.append((shape, pulse))
        return made

    def _flare(self, time: Float64s, gti: GoodTimeIntervals, generator: np.random.Generator) -> Float64s:
        length = gti.stop - gti.start
        which = int(generator.choice(len(length), p=length / length.sum()))
        peak = float(gti.start[which] + length[which] * generator.uniform(0.05, 0.85))
        height = self.amplitude * generator.uniform(0.7, 1.3) * _FLARE_TILT
        return flare(time, peak, self.timescale * float(generator.uniform(0.08, 0.25)), self.timescale, height)

    def _by_zone(self) -> Float64s:
        return np.asarray(np.geomspace(self.tilt, 1 / self.tilt, _ZONES))

    def _pulse(self, phase: float, elapsed: float) -> Pulse:
        # A fundamental and a weaker second harmonic, whose amplitudes together stay below one.
        amplitude = np.minimum(self.amplitude * self._by_zone(), 0.97)[:, None] * np.array([0.8, 0.2])
        turned = 2 * np.pi * ((elapsed / self.period) % 1.0)
        return Pulse(self.period, amplitude, np.array([phase + turned, 2 * phase + 1.0 + 2 * turned]))


def draw_variation(source_class: SourceClass, duration: float, generator: np.random.Generator) -> Variation:
    """Variability of a source whose shortest observation lasts `duration` seconds."""
    kinds = list(source_class.kinds)
    kind = kinds[int(generator.choice(len(kinds), p=[source_class.kinds[k] for k in kinds]))]
    tilt = source_class.softness * float(generator.uniform(0.95, 1.05))
    if kind == "flare":
        # Peaks of 3 to 30 times the level and decays of ~an hour (Wolk et al. 2005, young suns in Orion).
        amplitude = float(np.clip(log_normal(generator, 6.0, 0.25), 2.5, 30.0))
        decay = float(np.clip(log_normal(generator, 2500, 0.25), 0.02 * duration, 0.30 * duration))
        return Variation(kind, amplitude, timescale=decay, relative_timescale=decay / duration)
    if kind in ("dip", "eclipse"):
        # Orbital periods of hours; an eclipse is deep at all energies, a dip's depth and width vary.
        period = float(np.clip(log_normal(generator, 16e3, 0.2), 0.35 * duration, 2.5 * duration))
        width = period * float(generator.uniform(0.10, 0.22))
        depth = float(generator.uniform(0.55, 0.95) if kind == "dip" else generator.uniform(0.85, 0.98))
        return Variation(kind, depth, period, width, width / duration)
    if kind == "periodic":
        fast = generator.random() < source_class.fast_share
        share = float(np.exp(generator.uniform(np.log(0.05), np.log(0.30))))
        if generator.random() < 0.2:
            share = float(generator.uniform(0.3, 0.9))
        period = float(np.exp(generator.uniform(np.log(7), np.log(300)))) if fast else share * duration
        return Variation(
            kind, float(generator.uniform(0.35, 0.95)), period, relative_timescale=period / duration, tilt=tilt
        )
    if kind == "red_noise":
        return Variation(kind, float(generator.uniform(0.25, 0.85)), tilt=tilt)
    return Variation("steady")
