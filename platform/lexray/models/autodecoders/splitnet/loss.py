r"""Losses of `splitnet`, all over photons that the network has not seen, and all in nats.

Of their times,

.. math:: -\sum_j \log \frac{s_{b_j}(k_j) + c_{b_j}(k_j)}{\sum_k e_k\,(s_{b_j} + c_{b_j})(k)}

with s the source's rate and c the background's; of how many fall into each cell, a negative binomial number where the
rate is Gamma distributed about its estimate with relative variance v, which teaches v; and of their energies.
"""

import torch
from torch import Tensor

from lexray.models.autodecoders.splitnet.network import Estimate

#: Nats of a cell from which on its loss grows as a logarithm only, in `rate_loss`.
_LARGE = 20.0
_TINY = 1e-30


def timing_gain(found: Estimate, exposure: Tensor, target: Tensor) -> Tensor:
    """Log-likelihood of the times of `target`, f[N, B, K] counts, over that of a constant source: f[N] in nats.

    Parameters
    ----------
    found : Estimate
    exposure : f[N, K]
        During which the photons of `target` came.
    target : f[N, B, K]

    Notes
    -----
    Both sources have the same expected counts during `exposure`; so have they with the background.
    """
    share = exposure[:, None]
    background_rate = found.contamination / share.clamp(min=1e-6)
    rate = found.level[..., None] * found.density
    flat = (rate * share).sum(-1, keepdim=True) / share.sum(-1, keepdim=True)
    # A density that the network lets vanish is zero in float32, where a photon may come all the same.
    gain = (rate + background_rate).clamp(min=_TINY).log() - (flat + background_rate).clamp(min=_TINY).log()
    return (target * gain).sum((1, 2))


def counting_loss(found: Estimate, exposure: Tensor, target: Tensor, ratio: Tensor) -> Tensor:
    """Negative log-probability of the numbers `target`, f[N, B, K], of photons in each cell.

    It teaches variance and shift: density and level, which have a loss of their own, are held fixed.

    Parameters
    ----------
    ratio : f[N]
        Expected photons in `target` for each that the estimate was made from.
    """
    source = (found.level[..., None] * found.density * exposure[:, None]).detach() * found.shift
    mean = source + found.contamination
    # A cell without exposure expects nothing; its variance must only not be zero.
    variance = found.variance * (source / mean.clamp(min=1e-12)).square().clamp(min=1e-6)
    return -log_negative_binomial(target, ratio[:, None, None] * mean, variance).sum((1, 2))


def rate_loss(found: Estimate, exposure: Tensor, rate: Tensor) -> Tensor:
    r"""Negative log-density of known rates of the source, mean over its good time and bands: f[N] in nats.

    Gamma distributed about the estimate, of which only variance and shift are taught, as by `counting_loss`, whose
    limit this is for a number of photons without bound.

    Parameters
    ----------
    found : Estimate
    exposure : f[N, K]
    rate : f[N, B, K]
        Counts a cell of full exposure.
    """
    mean = (found.level[..., None] * found.density).detach().clamp(min=1e-12) * found.shift
    relative, shape = (rate / mean).clamp(1e-6, 1e6), 1 / found.variance
    surprise = shape.lgamma() - shape * shape.log() - shape * (relative.log() - relative)
    # Where the estimate is sure and far off, the density has no bound: a few cells must not outweigh all others.
    surprise = torch.where(surprise > _LARGE, _LARGE * (1 + (surprise.clamp(min=_LARGE) / _LARGE).log()), surprise)
    weight = exposure[:, None].expand_as(surprise)
    return (surprise * weight).sum((1, 2)) / weight.sum((1, 2))


def log_negative_binomial(n: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    r"""Log-probability of Poisson counts whose expectation is Gamma distributed, but for what depends on n alone.

    .. math:: \log\frac{\Gamma(n + 1/v)}{\Gamma(1/v)} + n \log\frac{v\mu}{1 + v\mu} - \frac{\log(1 + v\mu)}{v}

    Parameters
    ----------
    n : f[…]
        Counts.
    mean : f[…]
        mu.
    variance : f[…]
        v, relative variance of the expectation.
    """
    log_p = -(variance * mean).log1p() / variance
    # Most cells are empty, and most of the others hold one photon: only the rest need a Gamma function.
    some = (n > 0).nonzero(as_tuple=True)
    count, mu, v = n[some], mean[some].clamp(min=1e-12), variance[some]
    photons = count * (mu / (1 + v * mu)).log()
    many = count > 1
    # Differences of large logarithms, which float32 would lose.
    k, w = count[many].double(), v[many].double()
    pairs = (k + 1 / w).lgamma() - (1 / w).lgamma() + k * w.log()
    return log_p.index_put(some, photons.index_put((many,), pairs.to(photons.dtype), accumulate=True), accumulate=True)
