r"""Variability odds of Gregory & Loredo (1992, ApJ 398, 146), as `glvary` of CIAO gives them for Chandra's sources.

A constant rate is compared with stepwise ones of m = 2, 3 … equal bins whose heights have a flat prior and whose first
edge lies anywhere. With n_j of N photons in bin j, the odds of m bins at the phase :math:`\phi` over a constant are
(their eqs. 5.25–5.28)

.. math:: O_m(\phi) = \frac{N!\,(m-1)!}{(N+m-1)!}\; m^N \Big/ \frac{N!}{n_1!\,\cdots\,n_m!} ,

averaged over the phase, which is uniform, and over m, all equally likely; constant and variable are as likely before
the photons are seen. Bins are on the clock of good time, where a constant rate has equal chances in each of them
whatever the gaps, so that the closed form holds without the approximate weights that gaps need in the paper.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from lexray.events.eventlist import EventList

#: Most bins, and phases over one bin's width.
MAX_BINS, N_PHASES = 48, 8


def log10_odds(events: EventList, max_bins: int = MAX_BINS) -> float:
    """Log10 of the odds that the rate varies, of all bands together; 0 where there is no photon to tell.

    Parameters
    ----------
    events : EventList
    max_bins : int
        Largest m; never more than there are photons.
    """
    n_bins_max = min(max_bins, len(events))
    if n_bins_max < 2:
        return 0.0
    phase = events.gti.good_time_before(events.time) / events.gti.ontime
    each = [log_odds_of_bins(phase, m) for m in range(2, n_bins_max + 1)]
    return float((logsumexp(each) - np.log(len(each))) / np.log(10))


def log_odds_of_bins(phase: NDArray[np.float64], m: int, phases: int = N_PHASES) -> float:
    """Natural log of O_m, averaged over the first edge's place.

    Parameters
    ----------
    phase : f8[N]
        Photons' places, 0 … 1, on the clock of good time; the bins' circle closes at 1.
    m : int
        Bins.
    phases : int
        Places of the first edge, at even steps over one bin.
    """
    n = len(phase)
    fine = np.bincount(np.minimum((phase * m * phases).astype(np.int64), m * phases - 1), minlength=m * phases)
    turned = fine[(np.arange(phases)[:, None] + np.arange(m * phases)) % (m * phases)]
    in_bin = turned.reshape(phases, m, phases).sum(axis=2)
    log_odds = gammaln(in_bin + 1).sum(axis=1) + gammaln(m) - gammaln(n + m) + n * np.log(m)
    return float(logsumexp(log_odds) - np.log(phases))
