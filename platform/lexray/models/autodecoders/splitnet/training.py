r"""Count splitting: training of `splitnet` on photons held out from its input, split again each time.

Three losses, all over photons that the network has not seen, all in nats: of their times,

.. math:: -\sum_j \log \frac{s_{b_j}(k_j) + c_{b_j}(k_j)}{\sum_k e_k\,(s_{b_j} + c_{b_j})(k)}

with s the source's rate and c the background's; of how many fall into each cell, a negative binomial number where the
rate is Gamma distributed about its estimate with relative variance v, which teaches v; and of their energies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lexray.models.autodecoders.learner import Schedule, setting
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.splitnet.binning import ENERGY_CELLS, BinnedPhotons, bin_photons
from lexray.models.autodecoders.splitnet.network import Estimate, NetworkInput, SplitNet, estimate

#: Share of a detection's photons that its network sees in training.
_INPUT_SHARES = (0.5, 0.95)
#: Detections read at once where no gradient is wanted.
_BATCH = 256


@dataclass(frozen=True)
class ThinnedDetections:
    """M detections of K cells, part of whose photons the network sees, and part of which it must predict.

    Attributes
    ----------
    row : i8[M]
        Their places in the batch.
    seen : NetworkInput
    target : f4[M, B, K]
        Counts to predict.
    target_energies : f4[M, E]
    exposure : f4[M, K]
        During which the photons to predict came; the network may have seen less of it.
    ratio : f4[M]
        Expected number of photons to predict for each one seen in the same time.
    """

    row: Tensor
    seen: NetworkInput
    target: Tensor
    target_energies: Tensor
    exposure: Tensor
    ratio: Tensor

    def to(self, device: torch.device) -> ThinnedDetections:
        """The same on a device."""
        seen = self.seen.map(lambda value: value.to(device))
        row, *rest = (value.to(device) for value in (self.row, *self.targets))
        return ThinnedDetections(row, seen, *rest)

    @property
    def targets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the network must predict: target, target_energies, exposure, ratio."""
        return self.target, self.target_energies, self.exposure, self.ratio


def thin(
    data: BinnedPhotons,
    row: Tensor,
    generator: torch.Generator,
    background_augmentation: float,
    gap_augmentation: float,
) -> ThinnedDetections:
    """Split photons at random, hide some of the good time, and turn and shift the detections in time.

    Parameters
    ----------
    data : BinnedPhotons
        M detections.
    row : i8[M]
        Their places in the batch.
    generator : torch.Generator
    background_augmentation : float
        Probability that a detection without a background region gets the photons of another one as its background.
    gap_augmentation : float
        Probability that the network does not see parts of the good time, and so learns what to say of gaps.
    """
    m, k = len(data), data.n_cells
    low, high = _INPUT_SHARES
    share = low + (high - low) * torch.rand(m, generator=generator)
    chosen = torch.rand(len(data.slot), generator=generator) < share[data.owner]
    counts, target = data.counts(chosen), data.counts(~chosen)
    background, scale = data.background_counts(), data.scale / share
    add = (data.scale.isnan() & (torch.rand(m, generator=generator) < background_augmentation)).nonzero()[:, 0]
    if len(add) and m > 1:
        inside, region, ratio = _added_background(counts + target, data.exposure, add, generator)
        of_seen = torch.binomial(inside, share[add, None, None].expand_as(inside), generator=generator)
        counts[add] += of_seen
        target[add] += inside - of_seen
        background[add], scale[add] = region, ratio / share[add]
    cell = torch.arange(k).expand(m, k)
    cell = torch.where(torch.rand(m, 1, generator=generator) < 0.5, cell, k - 1 - cell)
    cell = (cell + torch.randint(k, (m, 1), generator=generator)) % k
    by_band = cell[:, None].expand(-1, data.n_bands, -1)
    exposure = data.exposure.gather(1, cell)
    shown = _shown(exposure, gap_augmentation, generator) | ~scale.isnan()[:, None]
    seen = NetworkInput(
        counts.gather(2, by_band) * shown[:, None],
        exposure * shown,
        background.gather(2, by_band),
        scale,
        data.width,
        data.area,
        data.energies(chosen),
        data.energy_range,
    )
    return ThinnedDetections(
        row, seen, target.gather(2, by_band), data.energies(~chosen), exposure, (1 - share) / share
    )


def _shown(exposure: Tensor, gap_augmentation: float, generator: torch.Generator) -> Tensor:
    """Cells that the network sees, bool[M, K]: all, or some of the blocks of a length drawn for each detection."""
    m, k = exposure.shape
    length = 2 ** torch.randint(2, 7, (m, 1), generator=generator)
    block = torch.arange(k) // length.clamp(max=k // 4)
    kept = 0.2 + 0.7 * torch.rand(m, 1, generator=generator)
    shown = torch.rand(m, k, generator=generator).gather(1, block) < kept
    enough = (exposure * shown).sum(1) > 0.1 * exposure.sum(1)
    return shown | ~enough[:, None] | (torch.rand(m, 1, generator=generator) >= gap_augmentation)


def _added_background(
    counts: Tensor, exposure: Tensor, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The neighbours of `rows` as their backgrounds: counts inside the source's region, in the other, and their ratio.

    Photons dealt at random to the two are independent Poisson processes of one shape, as a background's are.
    """
    theirs = counts[rows - 1]
    ratio = 10.0 ** torch.rand(len(rows), generator=generator)
    # Up to as many photons as the source's own, and none where it was not observed.
    brightness = counts[rows].sum((1, 2)) / theirs.sum((1, 2)).clamp(min=1.0)
    share = (torch.rand(len(rows), generator=generator) * brightness * (1 + ratio)).clamp(max=1.0)
    kept = torch.binomial(theirs, share[:, None, None] * exposure[rows, None].expand_as(theirs), generator=generator)
    inside = torch.binomial(kept, (1 / (1 + ratio))[:, None, None].expand_as(kept), generator=generator)
    return inside, kept - inside, ratio


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
    total = (rate * share).sum(-1, keepdim=True)
    flat = total / share.sum(-1, keepdim=True)
    return (target * ((rate + background_rate).log() - (flat + background_rate).log())).sum((1, 2))


def counting_loss(found: Estimate, exposure: Tensor, target: Tensor, ratio: Tensor) -> Tensor:
    """Negative log-probability of the numbers `target`, f[N, B, K], of photons in each cell.

    It teaches variance and shift: density and level, which have a loss of their own, are held fixed.

    Parameters
    ----------
    ratio : f[N]
        Expected photons in `target` for each that the estimate was made from.
    """
    share = exposure[:, None]
    source = (found.level[..., None] * found.density * share).detach() * found.shift
    mean = source + found.contamination
    # A cell without exposure expects nothing; its variance must only not be zero.
    variance = found.variance * (source / mean.clamp(min=1e-12)).square().clamp(min=1e-6)
    return -log_negative_binomial(target, ratio[:, None, None] * mean, variance).sum((1, 2))


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


@dataclass(frozen=True)
class SplitnetSettings(Schedule):
    """Of the network and its training.

    Attributes
    ----------
    width, blocks : int
        Of `TimeNet`.
    spectral_features : int
        Of `SpectrumNet`.
    background_augmentation, gap_augmentation : float
        Probabilities that a detection is trained with another one's photons as its background, and that parts of its
        good time are hidden.
    """

    epochs: int = 40
    batch_size: int = 64
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    ema: float = 0.999
    width: int = setting(16, "hidden units of a layer", ge=1)
    blocks: int = setting(2, "residual blocks", ge=1)
    spectral_features: int = setting(32, "numbers that the photons' energies add to the features", ge=1)
    background_augmentation: float = setting(0.1, "share trained with another's photons as background", ge=0, le=1)
    gap_augmentation: float = setting(0.2, "share trained with parts of their good time hidden", ge=0, le=1)

    def learner(self) -> SplitnetLearner:
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


#: Detections of a batch by their number of cells.
ThinnedBatch = dict[int, ThinnedDetections]


class SplitnetLearner:
    """`splitnet` for the trainer."""

    model_type = "splitnet"
    latent_dim = 0

    def __init__(self, settings: SplitnetSettings) -> None:
        self.settings = settings
        self.network = SplitNet(
            settings.n_bands, settings.width, settings.blocks, ENERGY_CELLS, settings.spectral_features
        )

    def prepare(self, photons: Photons) -> Prepared:
        """Bin a part's photons."""
        return Prepared(*bin_photons(photons))

    def draw(self, data: Prepared, rows: Tensor, generator: torch.Generator) -> ThinnedBatch:
        """Split the photons of `rows`."""
        size, place = data.size[rows], data.place[rows]
        sample = {}
        for k in sorted(set(size.tolist())):
            mine = (size == k).nonzero()[:, 0]
            chosen, s = data.groups[k].select(place[mine]), self.settings
            sample[k] = thin(chosen, mine, generator, s.background_augmentation, s.gap_augmentation)
        return sample

    def join(self, samples: Sequence[ThinnedBatch]) -> ThinnedBatch:
        """One batch of several slices."""
        first = 0
        by_size: dict[int, list[ThinnedDetections]] = {}
        for sample in samples:
            for k, one in sample.items():
                by_size.setdefault(k, []).append(replace(one, row=one.row + first))
            first += sum(len(one.row) for one in sample.values())
        return {k: _concatenate(several) for k, several in sorted(by_size.items())}

    def to(self, sample: ThinnedBatch, device: torch.device) -> ThinnedBatch:
        """The same batch on a device."""
        return {k: one.to(device) for k, one in sample.items()}

    def losses(self, sample: ThinnedBatch, latent: Tensor | None) -> Tensor:
        """Loss of each detection, f[M] in nats."""
        rows = torch.cat([one.row for one in sample.values()])
        found = torch.cat([self._losses(one) for one in sample.values()])
        return torch.zeros_like(found).index_copy(0, rows, found)

    def _losses(self, one: ThinnedDetections) -> Tensor:
        found = estimate(self.network, one.seen)
        timing = -timing_gain(found, one.exposure, one.target)
        counting = counting_loss(found, one.exposure, one.target, one.ratio)
        return timing + counting - (one.target_energies * found.log_share).sum(1)

    @torch.no_grad()
    def gains(self, fit: Photons, held: Photons, start: Tensor | None) -> Tensor:
        """Gain of each detection's held-out photons, f8[N] in nats."""
        groups, size, _ = bin_photons(fit)
        targets, _, _ = bin_photons(held)
        gain = torch.zeros(len(fit), dtype=torch.float64)
        device = next(self.network.parameters()).device
        for k, data in groups.items():
            rows = (size == k).nonzero()[:, 0]
            for some in torch.split(torch.arange(len(rows)), _BATCH):
                seen, target = data.select(some).to(device), targets[k].select(some).to(device)
                found = estimate(self.network, seen.seen())
                gain[rows[some]] = timing_gain(found, seen.exposure, target.counts()).double().cpu()
        return gain


def _concatenate(several: Sequence[ThinnedDetections]) -> ThinnedDetections:
    seen = NetworkInput(
        *(torch.cat([getattr(one.seen, field.name) for one in several]) for field in fields(NetworkInput))
    )
    row, *rest = (torch.cat(values) for values in zip(*((one.row, *one.targets) for one in several), strict=True))
    return ThinnedDetections(row, seen, *rest)
