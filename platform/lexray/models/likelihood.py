r"""Likelihood of an inhomogeneous Poisson process whose log-rate is linear between knots.

A detection observed during its good time :math:`G` with photons :math:`(t_j, b_j)` and rates :math:`\lambda_b(t)` has

.. math:: \log L = \sum_j \log\lambda_{b_j}(t_j) - \sum_b \int_G \lambda_b(t)\,dt .

With :math:`\log\lambda_b(t) = \sum_k u_{bk} h_k(t)` over hat functions :math:`h_k` at K equidistant knots, the first
sum is :math:`\sum_{bk} W_{bk} u_{bk}` with :math:`W_{bk} = \sum_{j: b_j = b} h_k(t_j)`, exactly: the photons of a
detection enter only through `hat_counts`, once. The integral is closed in each cell between two knots. Time is scaled
by each detection's duration, so that the knots lie at 0, 1/(K − 1) … 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lexray.models.photons import Photons


@dataclass(frozen=True)
class Cells:
    """What the likelihood needs of N detections on K knots.

    Attributes
    ----------
    hat_counts : f4[N, B, K]
        W above: each photon's unit shared between its two knots.
    exposure : f4[N, K − 1]
        Good time in each cell, as a share of the detection's duration.
    centre : f4[N, K − 1]
        Mean position of that good time within the cell, 0 … 1.
    """

    hat_counts: Tensor
    exposure: Tensor
    centre: Tensor

    @property
    def counts(self) -> Tensor:
        """Photons by band, f4[N, B]."""
        return self.hat_counts.sum(-1)

    def select(self, rows: Tensor) -> Cells:
        """The detections `rows`."""
        return Cells(self.hat_counts[rows], self.exposure[rows], self.centre[rows])


def cells(photons: Photons, n_knots: int) -> Cells:
    """Sum photons and good time onto knots and the cells between them.

    Parameters
    ----------
    photons : Photons
        N detections.
    n_knots : int
        K, at least 2.
    """
    n, n_bands = len(photons), photons.n_bands
    duration = photons.duration
    position = (photons.time / duration[photons.owner]).clamp(0.0, 1.0) * (n_knots - 1)
    left = position.floor().clamp(max=n_knots - 2)
    right_share = (position - left).float()
    slot = (photons.owner * n_bands + photons.band) * n_knots + left.long()
    hat_counts = torch.zeros(n * n_bands * n_knots)
    hat_counts.index_add_(0, slot, 1.0 - right_share)
    hat_counts.index_add_(0, slot + 1, right_share)

    exposure, centre = _good_time(photons, duration, n_knots)
    return Cells(hat_counts.reshape(n, n_bands, n_knots), exposure, centre)


def _good_time(photons: Photons, duration: Tensor, n_knots: int) -> tuple[Tensor, Tensor]:
    """Good time in each cell and its mean position, from integrals of 1 and t over the good time up to each knot."""
    owner = photons.gti_owner
    start = (photons.gti_start / duration[owner])[:, None]
    stop = (photons.gti_stop / duration[owner])[:, None]
    knots = torch.linspace(0.0, 1.0, n_knots, dtype=torch.float64)
    until = torch.minimum(torch.maximum(knots, start), stop)
    empty = torch.zeros(len(photons), n_knots, dtype=torch.float64)
    amount = empty.index_add(0, owner, until - start).diff()
    moment = empty.index_add(0, owner, (until**2 - start**2) / 2).diff()
    width = 1.0 / (n_knots - 1)
    mean = torch.where(amount > 1e-12, moment / amount.clamp(min=1e-12), knots[:-1] + width / 2)
    centre = ((mean - knots[:-1]) / width).clamp(0.0, 1.0)
    return amount.clamp(min=0.0).float(), centre.float()


def log_integral(log_rate: Tensor, exposure: Tensor, centre: Tensor) -> Tensor:
    r"""Log of the integral of a rate over good time.

    Parameters
    ----------
    log_rate : f[N, B, K]
        Values u at the knots, per unit of scaled time.
    exposure, centre : f[N, K − 1]
        As in `Cells`.

    Returns
    -------
    f[N, B]

    Notes
    -----
    Good time of length e around the position c of a cell of width h contributes
    :math:`e\,e^{u_c}\,\sinh(s)/s` with :math:`s = (u_{k+1} - u_k)\,e/2h`: exact where the cell's good time is one
    interval, as it nearly always is; of several intervals in one cell only the amount and the mean position count.
    """
    rise = log_rate.diff()
    at_centre = log_rate[..., :-1] + rise * centre[:, None, :]
    n_cells = exposure.shape[-1]
    s = rise * (exposure * n_cells / 2)[:, None, :]
    return torch.logsumexp(at_centre + _log_sinhc(s) + exposure.log()[:, None, :], dim=-1)


def _log_sinhc(s: Tensor) -> Tensor:
    """log(sinh(s)/s), whose series is used near 0 where the quotient loses its digits."""
    small = s.abs() < 0.1
    series = s.square() / 6 - s.square().square() / 180
    size = torch.where(small, 1.0, s.abs())
    exact = size + torch.log1p(-torch.exp(-2 * size)) - torch.log(2 * size)
    return torch.where(small, series, exact)


def log_likelihood(log_rate: Tensor, data: Cells) -> Tensor:
    """Poisson process log-likelihood of each detection.

    Parameters
    ----------
    log_rate : f[N, B, K]
        Per unit of scaled time; subtract ``log(duration)`` from it for counts/s.
    data : Cells

    Returns
    -------
    f[N]
        In nats.
    """
    events = (data.hat_counts * log_rate).sum((-1, -2))
    return events - log_integral(log_rate, data.exposure, data.centre).exp().sum(-1)


def profile_log_likelihood(log_shape: Tensor, data: Cells) -> Tensor:
    r"""Log-likelihood with each band's level at its maximum, but for a constant of the data.

    With :math:`\log\lambda_b = \ell_b + g_b(t)` the likelihood is highest at
    :math:`\ell_b = \log n_b - \log\int_G e^{g_b}`; what is left is :math:`\sum_{bk} W_{bk} g_{bk} - \sum_b n_b
    \log\int_G e^{g_b}`, the log-probability of the arrival times given how many photons there are.

    Parameters
    ----------
    log_shape : f[N, B, K]
        g; its level does not matter.
    data : Cells

    Returns
    -------
    f[N]
        In nats.
    """
    events = (data.hat_counts * log_shape).sum((-1, -2))
    return events - (data.counts * log_integral(log_shape, data.exposure, data.centre)).sum(-1)


def level(log_shape: Tensor, data: Cells, prior_counts: float = 0.5) -> Tensor:
    """Log of the factor that gives each band's rate the posterior mean count, f[N, B].

    Parameters
    ----------
    log_shape : f[N, B, K]
    data : Cells
    prior_counts : float
        Shape of the Gamma prior of a band's counts (Jeffreys: 1/2), so that a band without a photon has a finite rate.
    """
    return torch.log(data.counts + prior_counts) - log_integral(log_shape, data.exposure, data.centre)
