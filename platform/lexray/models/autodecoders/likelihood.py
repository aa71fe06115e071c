r"""Likelihood of an inhomogeneous Poisson process in several bands, seen during good time only.

A detection observed during its good time :math:`G` with photons :math:`(t_j, b_j)` and rates :math:`\lambda_b(t)` has

.. math:: \log L = \sum_j \log\lambda_{b_j}(t_j) - \sum_b \int_G \lambda_b(t)\,dt .

`log_likelihood` has it on knots: of a log-rate that is linear between K equidistant knots. With
:math:`\log\lambda_b(t) = \sum_k u_{bk} h_k(t)` over hat functions :math:`h_k`, the first sum is
:math:`\sum_{bk} W_{bk} u_{bk}` with :math:`W_{bk} = \sum_{j: b_j = b} h_k(t_j)`, exactly: the photons of a detection
enter only through `hat_counts`, once. The integral is closed in each cell between two knots. Time is scaled by each
detection's duration, so that the knots lie at 0, 1/(K − 1) … 1.

Where a background region was observed during the same good time, and so with the same live fraction, both regions have
one likelihood: the source's region sees :math:`s + b/r`, the background's sees :math:`b`, with :math:`r` the ratio of
their areas × exposures (`BackgroundPhotons.scale`),

.. math:: \log L = \sum_{src} \log(s + b/r) - \int_G (s + b/r)\,dt + \sum_{bkg} \log b - \int_G b\,dt

On knots, :math:`b` is estimated first (`lexray.models.autodecoders.background`) and then held: `Cells.background`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import Photons, TensorFields

#: Shape of the Gamma prior of a band's counts: Jeffreys'.
PRIOR_COUNTS = 0.5
#: Share of that prior which is the source's own where there is a background.
_OWN_SHARE = 0.1
_NEWTON_STEPS = 10
# A floor where a logarithm would be infinite: a photon in a cell without good time, by rounding.
_TINY = 1e-20
#: Good-time intervals times cells whose exposure is summed at once.
_EXPOSURES_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class CellBackground(TensorFields):
    """Photons and expected background by cell of those M of N detections whose background is known.

    Attributes
    ----------
    rows : i8[M]
        Which of the N detections, in increasing order.
    counts : f4[M, B, K − 1]
        Photons of the source's region.
    expected : f4[M, B, K − 1]
        Background photons expected among them.
    """

    rows: Tensor
    counts: Tensor
    expected: Tensor

    def select(self, rows: Tensor, n: int) -> "CellBackground | None":
        """Of the detections `rows` of N; None where none of them has a known background."""
        place = torch.full((n,), -1, dtype=torch.int64)
        place[self.rows] = torch.arange(len(self.rows))
        mine = place[rows]
        known = mine >= 0
        if not known.any():
            return None
        return CellBackground(known.nonzero()[:, 0], self.counts[mine[known]], self.expected[mine[known]])


@dataclass(frozen=True)
class Cells(TensorFields):
    """What the likelihood needs of N detections on K knots; they are selected from on the CPU only.

    Attributes
    ----------
    hat_counts : f4[N, B, K]
        W above: each photon's unit shared between its two knots.
    exposure : f4[N, K − 1]
        Good time in each cell, as a share of the detection's duration.
    centre : f4[N, K − 1]
        Mean position of that good time within the cell, 0 … 1.
    background : CellBackground, optional
        Of the detections whose background is known. The likelihood of these is that of a rate constant in each cell.
    """

    hat_counts: Tensor
    exposure: Tensor
    centre: Tensor
    background: CellBackground | None = None

    def __len__(self) -> int:
        return len(self.hat_counts)

    @property
    def counts(self) -> Tensor:
        """Photons by band, f4[N, B]."""
        return self.hat_counts.sum(-1)

    def select(self, rows: Tensor) -> "Cells":
        """The detections `rows`."""
        background = None if self.background is None else self.background.select(rows, len(self))
        return Cells(self.hat_counts[rows], self.exposure[rows], self.centre[rows], background)

    @staticmethod
    def concatenate(several: "Sequence[Cells]") -> "Cells":
        """All detections behind one another."""
        first = accumulate(map(len, several), initial=0)
        known = [
            replace(one.background, rows=one.background.rows + i)
            for one, i in zip(several, first, strict=False)
            if one.background is not None
        ]
        return Cells(
            torch.cat([c.hat_counts for c in several]),
            torch.cat([c.exposure for c in several]),
            torch.cat([c.centre for c in several]),
            CellBackground(
                torch.cat([b.rows for b in known]),
                torch.cat([b.counts for b in known]),
                torch.cat([b.expected for b in known]),
            )
            if known
            else None,
        )


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


def cell_counts(photons: Photons, n_cells: int) -> Tensor:
    """Photons of each detection and band in equal cells from its start to its last good time, f4[N, B, n_cells]."""
    n, n_bands, owner = len(photons), photons.n_bands, photons.owner
    cell = (photons.time / photons.duration[owner] * n_cells).long().clamp(0, n_cells - 1)
    slot = (owner * n_bands + photons.band) * n_cells + cell
    return torch.bincount(slot, minlength=n * n_bands * n_cells).reshape(n, n_bands, n_cells).float()


def exposure_shares(photons: Photons, k: int) -> Tensor:
    """Good time in each of `k` equal cells, as a share of the cell: f4[N, k]."""
    of = photons.gti_owner
    duration = photons.duration[of]
    start, stop = photons.gti_start / duration, photons.gti_stop / duration
    edges = torch.linspace(0.0, 1.0, k + 1, dtype=torch.float64)
    good = torch.zeros(len(photons), k + 1, dtype=torch.float64)
    for some in torch.split(torch.arange(len(of)), max(1, _EXPOSURES_AT_ONCE // k)):
        begin, end = start[some, None], stop[some, None]
        good.index_add_(0, of[some], torch.minimum(torch.maximum(edges, begin), end) - begin)
    return (good.diff() * k).clamp(0.0, 1.0).float()


def log_integral(log_rate: Tensor, exposure: Tensor, centre: Tensor) -> Tensor:
    """Log of the integral of a rate over good time: the sum of `cell_log_integrals`, f[N, B]."""
    return torch.logsumexp(cell_log_integrals(log_rate, exposure, centre), dim=-1)


def cell_log_integrals(log_rate: Tensor, exposure: Tensor, centre: Tensor) -> Tensor:
    r"""Log of the integral of a rate over the good time of each cell.

    Parameters
    ----------
    log_rate : f[N, B, K]
        Values u at the knots, per unit of scaled time.
    exposure, centre : f[N, K − 1]
        As in `Cells`.

    Returns
    -------
    f[N, B, K − 1]
        −∞ where there is no good time.

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
    return at_centre + _log_sinhc(s) + exposure.log()[:, None, :]


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
        Of the source, per unit of scaled time; subtract ``log(duration)`` from it for counts/s.
    data : Cells

    Returns
    -------
    f[N]
        In nats.
    """
    events = (data.hat_counts * log_rate).sum((-1, -2))
    alone = events - log_integral(log_rate, data.exposure, data.centre).exp().sum(-1)
    return _with_background(alone, log_rate, data, _above_background)


def profile_log_likelihood(log_shape: Tensor, data: Cells) -> Tensor:
    r"""Log-likelihood with each band's level at its maximum, but for a constant of the data.

    With :math:`\log\lambda_b = \ell_b + g_b(t)` the likelihood is highest at
    :math:`\ell_b = \log n_b - \log\int_G e^{g_b}`; what is left is :math:`\sum_{bk} W_{bk} g_{bk} - \sum_b n_b
    \log\int_G e^{g_b}`, the log-probability of the arrival times given how many photons there are. Above a known
    background the level is that of `level`.

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
    alone = events - (data.counts * log_integral(log_shape, data.exposure, data.centre)).sum(-1)
    return _with_background(alone, log_shape, data, _profiled_above_background)


def level(log_shape: Tensor, data: Cells, prior_counts: float = PRIOR_COUNTS) -> Tensor:
    """Log of the factor that gives each band's rate the posterior mean count, f[N, B].

    Parameters
    ----------
    log_shape : f[N, B, K]
    data : Cells
    prior_counts : float
        Shape of the Gamma prior of a band's counts (Jeffreys: 1/2), so that a band without a photon has a finite rate.

    Notes
    -----
    Above a known background it is the level of highest likelihood under that prior, which is the same number where
    the background vanishes.
    """
    total = torch.log(data.counts + prior_counts)
    known = data.background
    if known is not None:
        share = _shares(log_shape[known.rows], data, known).detach()
        total = total.index_copy(0, known.rows, source_counts(share, known.counts, known.expected, prior_counts).log())
    return total - log_integral(log_shape, data.exposure, data.centre)


def source_counts(share: Tensor, counts: Tensor, expected: Tensor, prior_counts: float = PRIOR_COUNTS) -> Tensor:
    r"""Counts of the source above a background of known expectation, by band.

    The S that maximises :math:`\sum_k n_k \log(S p_k + B_k) - S + \epsilon \log S + (a - \epsilon) \log(S + B)`.

    Parameters
    ----------
    share : f[M, B, C]
        p: where the source's photons fall, summing to 1 over the cells.
    counts : f[M, B, C]
        n.
    expected : f[M, B, C]
        Background photons; their sum over the cells is B.
    prior_counts : float
        a, positive.

    Returns
    -------
    f[M, B]

    Notes
    -----
    The prior adds half a count to what the region saw, whatever the background: given to the source alone, it would
    lift a faint source by a (S + B)/S counts. A small part :math:`\epsilon` of it is the source's own, and keeps a
    source fainter than the scatter of its background at a positive rate.

    The maximum is where :math:`r(S) = \epsilon/S + (a - \epsilon)/(S + B) + \sum_k n_k p_k/(S p_k + B_k) = 1`. Newton's
    method is applied to :math:`1/r(S)`, which is a straight line where there is no background, and kept in bounds.
    """
    own, shared = _OWN_SHARE * prior_counts, (1 - _OWN_SHARE) * prior_counts
    behind = expected.sum(-1)
    low = torch.full_like(behind, own)
    high = counts.sum(-1) + prior_counts
    total = (high - behind).maximum(low)
    for _ in range(_NEWTON_STEPS):
        weight = share / (total[..., None] * share + expected).clamp(min=_TINY)
        r = own / total + shared / (total + behind) + (counts * weight).sum(-1)
        slope = own / total.square() + shared / (total + behind).square() + (counts * weight.square()).sum(-1)
        # 1/r(S) = 1, linearised: d(1/r)/dS = slope/r².
        low, high = torch.where(r >= 1, total, low), torch.where(r <= 1, total, high)
        newton = total + (r - 1) * r / slope
        total = torch.where((newton >= low) & (newton <= high), newton, (low * high).sqrt())
    return total


_AboveBackground = Callable[[Tensor, Cells, CellBackground], Tensor]


def _with_background(alone: Tensor, log_rate: Tensor, data: Cells, above: _AboveBackground) -> Tensor:
    """`alone`, f[N], with the rows whose background is known replaced by what `above` makes of them."""
    known = data.background
    if known is None:
        return alone
    return alone.index_copy(0, known.rows, above(log_rate[known.rows], data, known))


def _above_background(log_rate: Tensor, data: Cells, known: CellBackground) -> Tensor:
    exposure = data.exposure[known.rows]
    source = cell_log_integrals(log_rate, exposure, data.centre[known.rows]).exp()
    mean = source + known.expected
    # Photons are points: their density is that of their cell, per unit of scaled time.
    density = (mean / exposure[:, None].clamp(min=_TINY)).clamp(min=_TINY)
    return (known.counts * density.log() - mean).sum((-1, -2))


def _profiled_above_background(log_shape: Tensor, data: Cells, known: CellBackground) -> Tensor:
    share = _shares(log_shape, data, known)
    # What is returned, the prior's term with it, is highest at this level: no gradient flows through it.
    total = source_counts(share.detach(), known.counts, known.expected)
    mean = (total[..., None] * share + known.expected).clamp(min=_TINY)
    region = total + known.expected.sum(-1)
    prior = PRIOR_COUNTS * (_OWN_SHARE * total.log() + (1 - _OWN_SHARE) * region.log())
    return (known.counts * mean.log()).sum((-1, -2)) + (prior - total).sum(-1)


def _shares(log_shape: Tensor, data: Cells, known: CellBackground) -> Tensor:
    """Share of a source's photons that fall into each cell, f[M, B, K − 1]."""
    return cell_log_integrals(log_shape, data.exposure[known.rows], data.centre[known.rows]).softmax(-1)
