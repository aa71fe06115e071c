"""Training of `splitnet` on detections whose rates are known: those of a simulation.

Nothing is held out. Photons are drawn anew each time, the network sees all of them, and what it must predict are the
expected counts themselves: the same loss as that of many held-out photons, without their noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lexray.models.autodecoders.photons import TensorFields
from lexray.models.autodecoders.splitnet.loss import rate_loss, timing_gain
from lexray.models.autodecoders.splitnet.network import NetworkInput, estimate
from lexray.models.autodecoders.splitnet.thinning import BatchBySize, DrawnDetections
from lexray.models.autodecoders.splitnet.training import SplitnetLearner, SplitnetSettings

#: A detection of N photons weighs as much as 300 · (N / 300)^`_POWER`: one of 30,000 must not outweigh all
#: others. Beside that, the uncertainty of its rates, a mean over them, weighs as `_UNCERTAINTY` photons.
_POWER, _UNCERTAINTY = 0.7, 17.0
TYPICAL_COUNTS = 300.0


@dataclass(frozen=True)
class KnownRates(TensorFields):
    """N detections on K cells of time each.

    Attributes
    ----------
    expected : f4[N, B, K]
        Counts of the source.
    contamination : f4[N, B, K]
        Counts of the background in the source's region.
    scale : f4[N]
        Expected counts of the background in its own region over those; NaN where there is no such region.
    exposure, gap, middle : f4[N, K]
    width, duration, area : f4[N]
    spectrum : f4[N, E]
        Share of the photons in each cell of energy.
    energy_range : f4[N, 2]
        As of `NetworkInput`.
    """

    expected: Tensor
    contamination: Tensor
    scale: Tensor
    exposure: Tensor
    gap: Tensor
    middle: Tensor
    width: Tensor
    duration: Tensor
    area: Tensor
    spectrum: Tensor
    energy_range: Tensor

    def __len__(self) -> int:
        return len(self.width)

    @property
    def weight(self) -> Tensor:
        """Photons that each detection counts as, f4[N]."""
        n = (self.expected + self.contamination).sum((1, 2))
        return TYPICAL_COUNTS * (n / TYPICAL_COUNTS) ** _POWER

    @property
    def offsets(self) -> Tensor:
        """As those of `Photons`, of the photons that the detections count as: i8[N + 1]."""
        return torch.cat([torch.zeros(1), self.weight.cumsum(0)]).long()


@dataclass(frozen=True)
class SimulatedDetections(DrawnDetections):
    """M detections of K cells, their photons drawn.

    Attributes
    ----------
    seen : NetworkInput
    rates : KnownRates
    """

    seen: NetworkInput
    rates: KnownRates


class KnownRateLearner(SplitnetLearner):
    """`splitnet` for the trainer, on a `PartSource` of `KnownRates`."""

    def prepare(self, photons: KnownRates) -> KnownRates:  # type: ignore[override]
        """The part, as it is."""
        return photons

    def draw(  # type: ignore[override]
        self, data: KnownRates, rows: Tensor, generator: torch.Generator
    ) -> BatchBySize[SimulatedDetections]:
        """Draw the photons of `rows`."""
        rates = data.map(lambda value: value[rows])
        drawn = SimulatedDetections(torch.arange(len(rows)), draw_photons(rates, generator), rates)
        return BatchBySize({rates.exposure.shape[1]: drawn})

    def _losses(self, one: SimulatedDetections) -> Tensor:  # type: ignore[override]
        found, rates, exposure = estimate(self.network, one.seen), one.rates, one.seen.exposure
        weight = rates.weight
        expected = rates.expected + rates.contamination
        share = expected / expected.sum((1, 2), keepdim=True).clamp(min=1e-6)
        timing = timing_gain(found, exposure, share)
        uncertainty = rate_loss(found, exposure, rates.expected / exposure.clamp(min=1e-6)[:, None])
        energies = (rates.spectrum * found.log_share).sum(1)
        return _UNCERTAINTY * uncertainty - weight * (timing + energies)


def draw_photons(rates: KnownRates, generator: torch.Generator) -> NetworkInput:
    """What the network sees of photons drawn from rates."""
    counts = torch.poisson(rates.expected + rates.contamination, generator)
    region = torch.poisson(rates.contamination * rates.scale.nan_to_num(0.0)[:, None, None], generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    share = rates.spectrum.double().numpy()
    energies = np.random.default_rng(seed).multinomial(
        counts.sum((1, 2)).long().numpy(), share / share.sum(1, keepdims=True)
    )
    return NetworkInput(
        counts,
        rates.exposure,
        rates.gap,
        rates.middle,
        region,
        rates.scale,
        rates.width,
        rates.duration,
        rates.area,
        torch.from_numpy(energies).float(),
        rates.energy_range,
    )


@dataclass(frozen=True)
class KnownRateSettings(SplitnetSettings):
    """Of a `splitnet` that is trained on known rates; once through them, as each part is drawn anew."""

    epochs: int = 1
    patience: int = 0

    def learner(self) -> KnownRateLearner:  # type: ignore[override]  # it takes rates in place of photons
        """A network of these sizes, its weights drawn from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return KnownRateLearner(self)
