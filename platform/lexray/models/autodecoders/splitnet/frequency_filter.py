r"""A filter in frequency, by which `splitnet` sees what repeats itself: a network of convolutions sees what is close.

Counts C of a source and those, M, of a constant one in cells about the moments t have the Fourier transform and the
power (Leahy et al. 1983)

.. math:: R(f) = \sum_k (C_k - M_k)\,e^{-2\pi i f t_k}, \qquad P(f) = \frac{2\,|R(f)|^2}{\sum_k M_k},

of mean 2 where nothing varies. A sinusoid of frequency f of unknown amplitude and phase has the log-likelihood P/2 over
a constant rate, so that exp(P/2) over its sum is the probability that f is its frequency (Bretthorst 1988). With these
weights the sinusoids that fit best add up to one curve; others have weights that a small network gives each frequency
by the powers about it, as a Wiener filter has them from a known spectrum.
"""

import math

import torch
from torch import Tensor, nn

#: Cells of the grid on which times stand, for each cell of the network. Counts of a detection without gaps then lie
#: in the middle of theirs.
_FINER = 4
#: Cycles a cell from which on a sinusoid cannot be told from a slower one.
_HIGHEST = 0.55
_HIDDEN = 12


class FrequencyFilter(nn.Module):
    """From counts in cells to curves in the same cells.

    Parameters
    ----------
    n_learnt : int
        Curves whose weights are learnt, beside the one of the frequencies' probabilities.
    """

    def __init__(self, n_learnt: int = 3) -> None:
        super().__init__()
        self.n_curves = n_learnt + 1
        self.weights = nn.Sequential(
            nn.Conv1d(6, _HIDDEN, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(_HIDDEN, _HIDDEN, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(_HIDDEN, n_learnt, 1),
        )

    def forward(self, excess: Tensor, mean: Tensor, middle: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Curves, and the evidence for a sinusoid.

        Parameters
        ----------
        excess, mean : f4[N, K]
            C − M and M; 0 in cells that are not used.
        middle : f4[N, K]
            Of the cells, over the detection's duration: 0 … 1.
        width : f4[N]
            Of a cell, over the duration.

        Returns
        -------
        curves : f4[N, n_curves, K]
            Modulations of the rate, asinh.
        evidence : f4[N, 1]
            Log of exp(P/2), its mean over the frequencies, a fifth of it; at most 6.
        """
        k, total = excess.shape[1], mean.sum(1, keepdim=True).clamp(min=1e-6)
        n = 2 * _FINER * k  # twice the grid: frequencies half a cycle of the duration apart
        place = (middle * (n // 2) + 1e-3).long().clamp(0, n // 2 - 1)
        on_grid = excess.new_zeros(len(excess), n // 2).scatter_add(1, place, excess)
        # From one cycle of the duration to one in two cells, or in the longer time of two where there are gaps.
        cycles = torch.arange(2, k + 1, device=excess.device) / 2
        transform = torch.fft.rfft(on_grid, n=n)[:, 2 : k + 1]
        power = 2 * (transform.real.square() + transform.imag.square()) / total
        a_cell = width[:, None] * cycles
        known = a_cell < _HIGHEST
        log_likelihood = (power / 2).masked_fill(~known, -torch.inf)
        sum_of_all = log_likelihood.logsumexp(1, keepdim=True)
        log_probability = log_likelihood - sum_of_all
        evidence = ((sum_of_all - math.log(len(cycles))) / 5).clamp(max=6.0)
        channels = [
            power.sqrt() / 3 - 0.4,
            log_probability.clamp(min=-20.0) / 5,
            evidence.expand_as(power),
            ((2 * cycles).log() / 3 - 1).expand_as(power),
            ((total + 1).log() / 3 - 1.8).expand_as(power),
            a_cell,
        ]
        learnt = self.weights(torch.stack(channels, dim=1)).float().sigmoid() / _FINER * known[:, None]
        weight = torch.cat([log_probability.exp()[:, None], learnt], dim=1)
        filtered = transform[:, None] * weight * (n / total)[..., None]
        curves = torch.fft.irfft(nn.functional.pad(filtered, (2, n // 2 - k)), n=n)
        return curves.gather(2, place[:, None].expand(-1, self.n_curves, -1)).asinh(), evidence
