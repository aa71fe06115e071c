"""Training of `splitnet` on photons held out from its input, split again each time."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.autodecoders.splitnet.binning import ENERGY_CELLS, BinnedPhotons, bin_photons, n_cells
from lexray.models.autodecoders.splitnet.loss import counting_loss, timing_gain
from lexray.models.autodecoders.splitnet.network import SplitNet, estimate
from lexray.models.autodecoders.splitnet.thinning import BatchBySize, ThinnedDetections, thin
from lexray.models.settings import setting

#: Detections read at once where no gradient is wanted.
_BATCH = 256


@dataclass(frozen=True)
class SplitnetSettings(Schedule):
    """Of the network and its training.

    Attributes
    ----------
    width, blocks : int
        Of `TimeNet`.
    spectral_features : int
        Of `SpectrumNet`.
    background_augmentation : float
        Probability that a detection is trained with another one's photons as its background.
    """

    size_names: ClassVar = ("width", "blocks", "spectral_features")

    epochs: int = 40
    batch_size: int = 64
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    ema: float = 0.999
    width: int = setting(24, "hidden units of a layer", ge=1)
    blocks: int = setting(2, "residual blocks", ge=1)
    spectral_features: int = setting(32, "numbers that the photons' energies add to the features", ge=1)
    background_augmentation: float = setting(0.1, "share trained with another's photons as background", ge=0, le=1)

    def learner(self) -> "SplitnetLearner":
        """A network of these sizes, its weights drawn from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return SplitnetLearner(self)


@dataclass(frozen=True)
class Prepared:
    """A part's detections as the training keeps them.

    Attributes
    ----------
    groups : dict of int to BinnedPhotons
        By number of cells.
    size, place : i8[N]
        Number of cells of each detection, and its row in that group.
    """

    groups: dict[int, BinnedPhotons]
    size: Tensor
    place: Tensor


class SplitnetLearner:
    """`splitnet` for the trainer."""

    model_type = "splitnet"
    latent_dim = 0

    def __init__(self, settings: SplitnetSettings) -> None:
        self.settings = settings
        self.network: nn.Module = SplitNet(
            settings.n_bands, settings.width, settings.blocks, ENERGY_CELLS, settings.spectral_features
        )

    def prepare(self, photons: Photons) -> Prepared:
        """Bin a part's photons."""
        return Prepared(*bin_photons(photons))

    def draw(self, data: Prepared, rows: Tensor, generator: torch.Generator) -> BatchBySize[ThinnedDetections]:
        """Split the photons of `rows`."""
        size, place = data.size[rows], data.place[rows]
        sample = BatchBySize[ThinnedDetections]()
        for k in sorted(set(size.tolist())):
            mine = (size == k).nonzero()[:, 0]
            chosen = data.groups[k].select(place[mine])
            sample[k] = thin(chosen, mine, generator, self.settings.background_augmentation)
        return sample

    def losses(self, sample: BatchBySize[ThinnedDetections], latent: Tensor | None) -> Tensor:
        """Loss of each detection, f[M] in nats."""
        rows = torch.cat([one.row for one in sample.values()])
        found = torch.cat([self._losses(one) for one in sample.values()])
        return torch.zeros_like(found).index_copy(0, rows, found)

    def _losses(self, one: ThinnedDetections) -> Tensor:
        found = estimate(self.network, one.seen)
        timing = -timing_gain(found, one.seen.exposure, one.target)
        counting = counting_loss(found, one.seen.exposure, one.target, one.ratio)
        return timing + counting - (one.target_energies * found.log_share).sum(1)

    @torch.no_grad()
    def gains(self, fit: Photons, held: Photons, start: Tensor | None) -> Tensor:
        """Gain of each detection's held-out photons, f8[N] in nats."""
        most = n_cells(fit)
        groups, size, _ = bin_photons(fit, most)
        targets, _, _ = bin_photons(held, most)
        gain = torch.zeros(len(fit), dtype=torch.float64)
        device = next(self.network.parameters()).device
        for k, data in groups.items():
            rows = (size == k).nonzero()[:, 0]
            for some in pieces(len(rows), _BATCH):
                seen, target = data.select(some).to(device), targets[k].select(some).to(device)
                found = estimate(self.network, seen.seen())
                gain[rows[some]] = timing_gain(found, seen.cells.exposure, target.counts()).double().cpu()
        return gain
