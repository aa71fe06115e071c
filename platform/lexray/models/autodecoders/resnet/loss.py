r"""Loss of the published Poisson process autodecoder (Song et al. 2025, arXiv:2502.01627), term by term.

For a detection with photons :math:`(t_j, b_j)` in scaled time and rates :math:`\lambda_b(t)`

.. math:: L = -\sum_j \log\lambda_{b_j}(t_j) + \sum_b \int \lambda_b(t)\,dt
              + w_{TV} \left(\overline{|\Delta\lambda|}_{mesh} + \overline{|\Delta\lambda|}_{photons}\right)
              + w_z |z|^2

in nats, with the integral as a sum over a mesh, and that is the one thing to choose. As published: by the trapezoid
rule from 0 to the last photon, so that a gap reads as a dip. Ours: over the good time only, the same number of steps
spread over it, and in training shifted at random. The published code minimises the mean of L over a batch; here it is
given for each detection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lexray.models.autodecoders.photons import Photons, TensorFields
from lexray.models.settings import setting

#: ``decoder(latent[Q, D], time[Q]) -> log_rate[Q, B]``.
Decoder = Callable[[Tensor, Tensor], Tensor]

#: Moments that the decoder is asked for at once: the activations of so many take about 2 GB at the published size.
_PIECE = 65_536


@dataclass(frozen=True)
class ResnetPenaltyWeights:
    """Weights of the penalties, relative to the log-likelihood in nats.

    Attributes
    ----------
    total_variation : float
        Of the mean absolute change of the rate, on the mesh and on the photons.
    latent : float
        Of the latent's squared norm.
    """

    total_variation: float = setting(10.0, "mean absolute change of the rate, on mesh and photons", ge=0)
    latent: float = setting(1.0, "squared norm of the latent", ge=0)


@dataclass(frozen=True)
class Arrivals(TensorFields):
    """Photons of M detections in scaled time, and the mesh on which their rates are integrated.

    Attributes
    ----------
    time : f8[P]
        Of the photons, in order of time within each detection.
    band, owner : i8[P]
        Band and detection of each photon.
    mesh_time : f8[Q]
        Where the integral asks for the rate.
    mesh_weight : f8[Q]
        Scaled time that each of these stands for.
    mesh_owner : i8[Q]
    n : int
        M.
    """

    time: Tensor
    band: Tensor
    owner: Tensor
    mesh_time: Tensor
    mesh_weight: Tensor
    mesh_owner: Tensor
    n: int

    @staticmethod
    def concatenate(several: "Sequence[Arrivals]") -> "Arrivals":
        """All detections behind one another."""
        *first, n = accumulate((a.n for a in several), initial=0)
        return Arrivals(
            torch.cat([a.time for a in several]),
            torch.cat([a.band for a in several]),
            torch.cat([a.owner + i for a, i in zip(several, first, strict=True)]),
            torch.cat([a.mesh_time for a in several]),
            torch.cat([a.mesh_weight for a in several]),
            torch.cat([a.mesh_owner + i for a, i in zip(several, first, strict=True)]),
            n,
        )


def time_scale(photons: Photons, shortest: float) -> Tensor:
    """Seconds that are one unit of scaled time, f8[N].

    Parameters
    ----------
    photons : Photons
        N detections.
    shortest : float
        In seconds; the published 28.8 ks is every detection's. Longer ones take their own duration, so that scaled time
        stays within 0 … 1.
    """
    return photons.duration.clamp(min=shortest)


def arrivals(
    photons: Photons,
    *,
    good_time: bool,
    n_steps: int,
    shortest: float,
    generator: torch.Generator | None = None,
) -> Arrivals:
    """Scale the times of detections and lay their mesh.

    Parameters
    ----------
    photons : Photons
        N detections.
    good_time : bool
        Whether to integrate over the good-time intervals; else from 0 to the last photon, as published.
    n_steps : int
        Steps of the integral for each detection, shared among its intervals by length, at least one each.
    shortest : float
        As in `time_scale`.
    generator : torch.Generator, optional
        Shifts the mesh by a random part of a step: see `_shifted_mesh`. Left out: the trapezoid rule, as published.
    """
    n = len(photons)
    scale = time_scale(photons, shortest)
    time = photons.time / scale[photons.owner]
    if good_time:
        owner = photons.gti_owner
        start, stop = photons.gti_start / scale[owner], photons.gti_stop / scale[owner]
    else:
        owner = torch.arange(n)
        start = torch.zeros(n, dtype=torch.float64)
        stop = start.scatter_reduce(0, photons.owner, time, "amax")
    length = stop - start
    total = length.new_zeros(n).index_add(0, owner, length)
    own_steps = (n_steps * length / total[owner].clamp(min=1e-300)).round().clamp(min=1).long()
    mesh_time, weight, interval = (
        _trapezoid_mesh(start, stop, own_steps)
        if generator is None
        else _shifted_mesh(start, stop, own_steps, generator)
    )
    return Arrivals(time, photons.band, photons.owner, mesh_time, weight, owner[interval], n)


def _trapezoid_mesh(start: Tensor, stop: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Times, weights and intervals of a mesh that begins and ends with each interval."""
    interval, index = _numbered(steps + 1)
    # From both ends, so that the last point lies on the interval's end exactly.
    share = index.double() / steps[interval]
    time = start[interval] * (1 - share) + stop[interval] * share
    inner = (index > 0) & (index < steps[interval])
    return time, ((stop - start) / steps)[interval] * torch.where(inner, 1.0, 0.5), interval


def _shifted_mesh(
    start: Tensor, stop: Tensor, steps: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A point in each step, all of an interval at the same random place of theirs.

    Its integral is right in the mean of any rate. A fixed mesh is not: where its steps are a power of two of the
    scaled time, as they are over whole good time, the sines of the last octaves vanish on it and nowhere between, and
    a decoder learns to be low on the mesh and high off it.
    """
    interval, index = _numbered(steps)
    width = (stop - start) / steps
    shift = torch.rand(len(start), dtype=torch.float64, generator=generator)
    return start[interval] + width[interval] * (index + shift[interval]), width[interval], interval


def _numbered(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """For runs of these lengths, the run of each element and its place in that run."""
    run = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return run, torch.arange(len(run)) - (lengths.cumsum(0) - lengths)[run]


def photon_term(log_rate: Tensor, band: Tensor, owner: Tensor, n: int) -> Tensor:
    """Σ log λ of each photon in its own band.

    Parameters
    ----------
    log_rate : f[P, B]
        At the photons' times.
    band, owner : i8[P]
    n : int
        Detections.

    Returns
    -------
    f[n]
    """
    own = log_rate.gather(1, band[:, None])[:, 0]
    return own.new_zeros(n).index_add(0, owner, own)


def integral(rate: Tensor, weight: Tensor, owner: Tensor, n: int) -> Tensor:
    """Σ_b ∫ λ_b dt as a sum over the mesh: the photons expected.

    Parameters
    ----------
    rate : f[Q, B]
        λ on the mesh.
    weight : f8[Q]
    owner : i8[Q]
    n : int
        Detections.

    Returns
    -------
    f[n]
    """
    return rate.new_zeros(n).index_add(0, owner, rate.sum(1) * weight.to(rate.dtype))


def total_variation(rate: Tensor, owner: Tensor, n: int) -> Tensor:
    """Mean over neighbouring moments and bands of |Δλ|, f[n]; 0 where a detection has fewer than two moments.

    Parameters as for `integral`; the rates are in order of time within each detection.
    """
    (before,) = (owner[1:] == owner[:-1]).nonzero(as_tuple=True)
    of = owner[before]
    change = (rate[before + 1] - rate[before]).abs().mean(1)
    return rate.new_zeros(n).index_add(0, of, change) / torch.bincount(of, minlength=n).clamp(min=1)


def latent_norm(latent: Tensor) -> Tensor:
    """|z|² of each detection, f[M]."""
    return latent.square().sum(1)


def losses(decoder: Decoder, latent: Tensor, data: Arrivals, penalties: ResnetPenaltyWeights) -> Tensor:
    """L above for each detection.

    Parameters
    ----------
    decoder : Decoder
    latent : f[M, D]
    data : Arrivals
        M detections.
    penalties : ResnetPenaltyWeights

    Returns
    -------
    f[M]
        In nats.
    """
    photons, mesh = log_rates(decoder, latent, data)
    rate = mesh.exp()
    roughness = total_variation(rate, data.mesh_owner, data.n) + total_variation(photons.exp(), data.owner, data.n)
    return (
        integral(rate, data.mesh_weight, data.mesh_owner, data.n)
        - photon_term(photons, data.band, data.owner, data.n)
        + penalties.total_variation * roughness
        + penalties.latent * latent_norm(latent)
    )


def log_likelihood(decoder: Decoder, latent: Tensor, data: Arrivals) -> Tensor:
    """Poisson process log-likelihood of each detection, per unit of scaled time, f[M] in nats."""
    photons, mesh = log_rates(decoder, latent, data)
    expected = integral(mesh.exp(), data.mesh_weight, data.mesh_owner, data.n)
    return photon_term(photons, data.band, data.owner, data.n) - expected


def log_rates(decoder: Decoder, latent: Tensor, data: Arrivals) -> tuple[Tensor, Tensor]:
    """Log-rates at the photons, f[P, B], and on the mesh, f[Q, B], in the precision of the latents."""
    time = torch.cat([data.time, data.mesh_time])
    owner = torch.cat([data.owner, data.mesh_owner])
    pieces = [
        # More than one piece is decoded again in the backward pass, instead of being kept: a detection of ten million
        # photons takes time, but no more memory than others.
        decoder(latent[of], t) if len(time) <= _PIECE else checkpoint(decoder, latent[of], t, use_reentrant=False)
        for of, t in zip(torch.split(owner, _PIECE), torch.split(time, _PIECE), strict=True)
    ]
    # Under mixed precision only the network is in half precision, never the likelihood.
    log_rate = torch.cat(pieces).to(latent.dtype)
    return log_rate[: len(data.time)], log_rate[len(data.time) :]
