"""One simulated observation of a source: good time, and the events that ACIS would have recorded.

What is left out: pile-up, the energy dependence of the point spread function, and frames. Arrival times are continuous,
as after randomisation within a frame; `TIMEDEL` still says 3.2 s.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lexray.array_types import Float64s
from lexray.events.eventlist import Bands, GoodTimeIntervals
from lexray.simulation.pointing import Pointing, draw_pointing
from lexray.simulation.source_classes import log_normal
from lexray.simulation.spectra import ZONE_EDGES, draw_energies
from lexray.simulation.true_rate import CELLS, TrueRate

#: Chandra's default bands, keV.
BANDS = Bands(ZONE_EDGES[1:5])
#: Zones of `TrueRate` that are the bands.
BAND_ZONES = slice(1, 4)
#: MJD of Chandra's time zero.
MJDREF = 50814.0
FRAME_TIME = 3.2
#: Width of a PI channel in eV, and the channel of everything above the last.
PI_WIDTH, PI_OVERFLOW = 14.6, 1024


def draw_windows(generator: np.random.Generator, n: int) -> list[tuple[float, GoodTimeIntervals]]:
    """Start (Chandra's seconds) and good time (since the start) of `n` observations, in order of time."""
    starts = generator.uniform(0.8e8, 6.0e8) + np.cumsum(
        [0.0] + [log_normal(generator, 8e6, 0.6) for _ in range(n - 1)]
    )
    return [(float(start), _draw_good_time(generator)) for start in starts]


def _draw_good_time(generator: np.random.Generator) -> GoodTimeIntervals:
    span = float(np.exp(generator.uniform(np.log(8e3), np.log(60e3))))
    if generator.random() >= 1 / 3:
        return GoodTimeIntervals(0.0, span)
    lost, n_gaps = generator.uniform(0.05, 0.40) * span, int(generator.integers(1, 4))
    good = generator.dirichlet(np.full(n_gaps + 1, 3.0)) * (span - lost)
    gaps = np.append(generator.dirichlet(np.full(n_gaps, 3.0)) * lost, 0.0)
    stops = np.cumsum(good + gaps) - gaps
    return GoodTimeIntervals(stops - good, stops)


@dataclass(frozen=True)
class SimulatedObservation:
    """One source in one observation, as the event file holds it.

    All times but the rate's are in Chandra's seconds.

    Attributes
    ----------
    obs_id : str
        Unique in the archive.
    t_start, t_stop : float
        The observation's ends; good time begins later and ends earlier.
    gti : GoodTimeIntervals
    dtcor : float
        Live fraction: exposure = ontime × dtcor.
    rate : TrueRate
        Against seconds since the first good time.
    pointing : Pointing
    time : f8[N]
        Sorted; some lie outside the good time.
    energy : f4[N]
        eV; some lie outside the bands.
    pi : i4[N]
        1024 is overflow.
    x, y : f4[N]
        Sky pixels.
    grade : i2[N]
    """

    obs_id: str
    t_start: float
    t_stop: float
    gti: GoodTimeIntervals
    dtcor: float
    rate: TrueRate
    pointing: Pointing
    time: Float64s
    energy: NDArray[np.float32]
    pi: NDArray[np.int32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    grade: NDArray[np.int16]

    @cached_property
    def true_rate(self) -> Float64s:
        """Mean rate of each band in `N_CELLS` equal cells since the first good time, f8[3, CELLS] ct/s of ontime."""
        return self.rate.cells(CELLS)[BAND_ZONES]

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """Which events lie in good time and in a band, bool[N]."""
        in_band = BANDS.index(self.energy / np.float32(1000)) >= 0
        return np.asarray(in_band & (self.pi < PI_OVERFLOW) & self.gti.contains(self.time))


def observe(
    obs_id: str,
    t_ref: float,
    rate: TrueRate,
    mixture: Float64s,
    position: tuple[float, float],
    generator: np.random.Generator,
) -> SimulatedObservation:
    """Draw an observation's events: the source's, and a few that a reader has to drop.

    Parameters
    ----------
    obs_id : str
        Unique in the archive.
    t_ref : float
        First good time, in Chandra's seconds.
    rate : TrueRate
        Source and background, by zone.
    mixture : f8[E]
        Measured spectrum on `spectra.ENERGY_EDGES`, any norm; events of a zone share it.
    position : (float, float)
        Right ascension and declination of the source, degrees.
    generator : numpy.random.Generator
        Draws everything.
    """
    time, zone = rate.draw(generator)
    energy = draw_energies(mixture, zone, generator)
    margin = generator.uniform(5.0, 60.0, 2)

    # Charged particles beyond the last channel, in good time; and events of every kind outside of it.
    n_overflow = generator.poisson(3e-5 * rate.gti.ontime)
    edges = np.concatenate([[-margin[0]], np.sort(np.concatenate([rate.gti.start, rate.gti.stop]))])
    edges = np.append(edges, rate.duration + margin[1])
    bad = GoodTimeIntervals(edges[0::2], edges[1::2])
    n_bad = generator.poisson(2.0 + 0.01 * len(time))
    extra_time = np.concatenate([_uniform_in(rate.gti, n_overflow, generator), _uniform_in(bad, n_bad, generator)])
    extra_energy = np.concatenate([generator.uniform(15e3, 40e3, n_overflow), generator.uniform(300, 9000, n_bad)])

    time = np.concatenate([time, extra_time])
    energy = np.concatenate([energy, extra_energy.astype(np.float32)])
    order = np.argsort(time, kind="stable")
    time, energy = time[order], energy[order]
    pointing = draw_pointing(*position, generator)
    x, y = pointing.scatter(len(time), generator)
    return SimulatedObservation(
        obs_id=obs_id,
        t_start=t_ref - float(margin[0]),
        t_stop=t_ref + rate.duration + float(margin[1]),
        gti=rate.gti.shift(t_ref),
        dtcor=float(generator.uniform(0.97, 0.99)),
        rate=rate,
        pointing=pointing,
        time=time + t_ref,
        energy=energy,
        pi=np.minimum(np.floor(energy.astype(np.float64) / PI_WIDTH) + 1, PI_OVERFLOW).astype(np.int32),
        x=x,
        y=y,
        grade=generator.choice(np.array([0, 2, 3, 4, 6], dtype=np.int16), len(time), p=[0.5, 0.2, 0.1, 0.1, 0.1]),
    )


def _uniform_in(gti: GoodTimeIntervals, n: int, generator: np.random.Generator) -> Float64s:
    """`n` times uniform in the intervals, never on their ends."""
    length = gti.stop - gti.start
    which = generator.choice(len(length), n, p=length / length.sum())
    return np.asarray(gti.start[which] + length[which] * generator.uniform(0.001, 0.999, n))
