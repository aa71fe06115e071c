"""The fixed-length representation of a detection: how its rate varies, and how its photons spread in energy.

What a source *is* shows in the kind of its variability, not in when it happened. The reconstructed rate is therefore
pooled over time into numbers that a shift or a reversal in time leaves alone; decision record 5 has what each group of
them is worth to the alignment.
"""

import torch
from torch import Tensor

from lexray.models.autodecoders.photons import Photons

#: Logarithmic energy cells from a detection's lowest band edge to its highest.
SPECTRAL_CELLS = 16
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# Floors below which a reconstruction's variations are its noise; they keep the logarithms of flat rates finite.
_RMS_FLOOR, _POWER_FLOOR, _VARIATION_FLOOR, _DEVIATION_FLOOR = 1e-2, 1e-4, 1e-2, 1e-3


def dimension(n_bands: int, n_knots: int) -> int:
    """Numbers in a representation."""
    octaves = n_knots.bit_length() - 1
    return 4 + len(_QUANTILES) + octaves + n_bands + SPECTRAL_CELLS


def represent(log_rate: Tensor, photons: Photons) -> Tensor:
    """Representation of each detection.

    Parameters
    ----------
    log_rate : f[N, B, K]
        Reconstructed log-rates at K knots, K a power of two.
    photons : Photons
        The N detections.

    Returns
    -------
    f[N, F]
        `variability`, log(1 + number of photons), then `spectrum`.
    """
    n_photons = photons.offsets.diff().float()[:, None]
    return torch.cat([variability(log_rate), n_photons.log1p(), spectrum(photons)], dim=1)


def variability(log_rate: Tensor) -> Tensor:
    """Kind and size of each detection's variability, whenever it happened.

    Parameters
    ----------
    log_rate : f[N, B, K]

    Returns
    -------
    f[N, 3 + 7 + log2(K) + B]
        Of the rate summed over the bands, over its mean: log fractional rms; quantiles 0, 5, 25, 50, 75, 95 and 100 %
        of the log-rate; log power of the log-rate in each octave of time scales, by Haar wavelets; skewness of the
        rate; log total variation of the log-rate. Then the log standard deviation of each band's log-rate about the
        mean over the bands: how far its colour varies.
    """
    total = log_rate.logsumexp(1)
    shape = total - total.logsumexp(-1, keepdim=True) + torch.log(torch.tensor(float(total.shape[-1])))
    rate = shape.exp()
    rms = rate.std(-1, correction=0)
    quantiles = torch.quantile(shape, torch.tensor(_QUANTILES, dtype=shape.dtype), dim=-1).T
    skewness = (rate - 1).pow(3).mean(-1) / (rms.pow(3) + _RMS_FLOOR)
    variation = shape.diff().abs().sum(-1)
    colour = (log_rate - log_rate.mean(1, keepdim=True)).std(-1, correction=0)
    return torch.cat(
        [
            (rms + _RMS_FLOOR).log()[:, None],
            quantiles,
            (haar_power(shape) + _POWER_FLOOR).log(),
            skewness[:, None],
            (variation + _VARIATION_FLOOR).log()[:, None],
            (colour + _DEVIATION_FLOOR).log(),
        ],
        dim=1,
    )


def haar_power(curve: Tensor) -> Tensor:
    """Mean square of a curve's Haar coefficients at each scale, the finest first.

    Parameters
    ----------
    curve : f[N, K]
        K a power of two.

    Returns
    -------
    f[N, log2(K)]
        They sum to the curve's variance.
    """
    powers = []
    while curve.shape[-1] > 1:
        first, second = curve[:, ::2], curve[:, 1::2]
        powers.append(((first - second) / 2).square().mean(-1))
        curve = (first + second) / 2
    return torch.stack(powers, dim=1)


def spectrum(photons: Photons) -> Tensor:
    """Log share of each detection's photons in logarithmic cells of energy, with half a photon added to each.

    Returns
    -------
    f4[N, SPECTRAL_CELLS]
    """
    low, high = (edge[photons.owner] for edge in photons.energy_range.log().unbind(1))
    cell = ((photons.energy.log() - low) / (high - low) * SPECTRAL_CELLS).long().clamp(0, SPECTRAL_CELLS - 1)
    slot = photons.owner * SPECTRAL_CELLS + cell
    counts = torch.bincount(slot, minlength=len(photons) * SPECTRAL_CELLS).reshape(-1, SPECTRAL_CELLS) + 0.5
    return (counts / counts.sum(1, keepdim=True)).log().float()
