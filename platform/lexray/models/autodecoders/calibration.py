r"""What a trained autodecoder learns of itself: how sure its representations are, and which detections are anomalous.

**Variance of the representation.** Two halves of a detection's photons, dealt at random, are two independent
observations of one source. A small network learns from the differences between their representations how far each
number scatters at that brightness and kind: no truth is needed.

**Anomaly.** The score of a detection is the negative log-probability of its photons' times under its own
reconstruction, less what that is on average for times drawn from the same rate, plus that of its representation
under the population's: a Gaussian mixture over the training's. Its p-value is the share of simulated detections of
similar brightness with a score at least as high; these are drawn from the reconstructions of the training's detections
and encoded like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lexray.models.autodecoders.compression import Compression
from lexray.models.autodecoders.learner import keyed_generator
from lexray.models.autodecoders.likelihood import exposure_shares
from lexray.models.autodecoders.photons import Photons, in_order, offsets_of
from lexray.models.autodecoders.reconstructor import Encoding, Reconstructor
from lexray.models.autodecoders.splitnet.binning import DEFAULT_CELLS, MOST, n_cells
from lexray.models.autodecoders.splitnet.network import log_counts

#: Shares of the photons that a detection's two disjoint parts get.
_PART_SHARES = (0.1, 0.5)
#: Simulated detections of similar brightness that a score is compared with.
NEIGHBOURS = 500
_COMPONENTS, _MIXTURE = 16, 8
_HIDDEN, _STEPS, _LEARNING_RATE = 64, 400, 5e-3
#: Detections times bins that are simulated at once.
_AT_ONCE = 131_072


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found, as tensors that a model file holds.

    Attributes
    ----------
    uncertainty : dict of str to Tensor
        Weights of the network that writes the representation's variance.
    population : dict of str to Tensor
        Projection and Gaussian mixture of the training's representations.
    null_counts, null_score : f4[M]
        Photons of simulated detections, increasing, and their scores.
    compression : Compression or None
        Of the representations.
    """

    uncertainty: dict[str, Tensor]
    population: dict[str, Tensor]
    null_counts: Tensor
    null_score: Tensor
    compression: Compression | None = None

    def variance(self, features: Tensor, counts: Tensor) -> Tensor:
        """Variance of each number of representations, f4[N, F].

        Parameters
        ----------
        features : f4[N, F]
        counts : f[N, B]
            Photons by band.
        """
        d = self.uncertainty
        hidden = torch.nn.functional.silu(_known(features, counts, d) @ d["0.weight"].T + d["0.bias"])
        return (hidden @ d["2.weight"].T + d["2.bias"]).exp() * d["scale"].square()

    def score(self, encoding: Encoding, counts: Tensor) -> Tensor:
        """Anomaly of each detection in nats, f4[N]."""
        return encoding.misfit - self._log_population(_known(encoding.features, counts, self.uncertainty))

    def p_value(self, score: Tensor, counts: Tensor) -> Tensor:
        """Share of simulated detections of similar brightness with a score at least as high, f4[N].

        Parameters
        ----------
        score : f4[N]
        counts : f[N, B]
        """
        near = self._near(counts)
        return (1.0 + (near >= score[:, None]).sum(1)) / (near.shape[1] + 1.0)

    def is_alone(self, score: Tensor, counts: Tensor) -> Tensor:
        """Whether no simulated detection of similar brightness has so high a score, or none so low a one, bool[N].

        The score is low where the photons lie closer together than the rate found from them can say. False where there
        are too few simulated detections to tell: a chance of one in 250 takes `NEIGHBOURS`.
        """
        near = self._near(counts)
        beyond = (near < score[:, None]).all(1) | (near > score[:, None]).all(1)
        return beyond & (near.shape[1] >= NEIGHBOURS)

    def _near(self, counts: Tensor) -> Tensor:
        m = len(self.null_score)
        n = min(NEIGHBOURS, m)
        middle = torch.searchsorted(self.null_counts, counts.sum(1).float())
        first = (middle - n // 2).clamp(0, m - n)
        return self.null_score[first[:, None] + torch.arange(n)]

    def _log_population(self, known: Tensor) -> Tensor:
        p = self.population
        z = (known - p["mean"]) @ p["axes"].T / p["spread"]
        away = torch.einsum("nkd,kde->nke", z[:, None] - p["centres"], p["precision"])
        log_density = -0.5 * away.square().sum(-1) + p["log_weight"]
        return log_density.logsumexp(1)

    def tensors(self) -> dict[str, Tensor]:
        """Of a model file."""
        return {
            **_prefixed("uncertainty", self.uncertainty),
            **_prefixed("population", self.population),
            **({} if self.compression is None else _prefixed("compression", self.compression.tensors())),
            "null_counts": self.null_counts,
            "null_score": self.null_score,
        }

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor]) -> "Calibration":
        """What `tensors` wrote."""
        groups: dict[str, dict[str, Tensor]] = {"uncertainty": {}, "population": {}, "compression": {}}
        for name, value in tensors.items():
            group, _, key = name.partition(".")
            if key:
                groups[group][key] = value
        return Calibration(
            groups["uncertainty"],
            groups["population"],
            tensors["null_counts"],
            tensors["null_score"],
            Compression.of_tensors(groups["compression"]) if groups["compression"] else None,
        )


def calibrate(model: Reconstructor[Any], photons: Photons, seed: int = 0) -> Calibration:
    """Learn how sure a model's representations are, and what the scores of ordinary detections are.

    Parameters
    ----------
    model : Reconstructor
    photons : Photons
        Some hundred detections at least, of the training's.
    seed : int
    """
    model, compression = model.compressed(photons)
    uncertainty = _learn_uncertainty(model, photons, seed)
    encoding, counts = model.encode(photons), photons.counts.float()
    population = _learn_population(_known(encoding.features, counts, uncertainty), seed)
    bare = Calibration(uncertainty, population, torch.zeros(0), torch.zeros(0), compression)
    again = simulate_like(model, photons, keyed_generator(seed, 1))
    score, number = bare.score(model.encode(again), again.counts.float()), again.counts.sum(1).float()
    order = number.argsort()
    return replace(bare, null_counts=number[order].contiguous(), null_score=score[order].contiguous())


def _prefixed(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{group}.{name}": value for name, value in tensors.items()}


def _known(features: Tensor, counts: Tensor, scale: Mapping[str, Tensor]) -> Tensor:
    """Standardised features and log counts side by side, f4[N, F + B]."""
    return torch.cat([(features - scale["mean"]) / scale["scale"], log_counts(counts)], dim=1)


def _learn_uncertainty(model: Reconstructor[Any], photons: Photons, seed: int) -> dict[str, Tensor]:
    generator = keyed_generator(seed, 0)
    low, high = _PART_SHARES
    share = low + (high - low) * torch.rand(len(photons), generator=generator)
    drawn, mine = torch.rand(len(photons.time), generator=generator), share[photons.owner]
    halves = [photons.keep(chosen).background_over(share) for chosen in (drawn < mine, drawn > 1 - mine)]
    features = [model.encode(half).features for half in halves]
    counts = [half.counts.float() for half in halves]
    everything = torch.cat(features)
    scale = {"mean": everything.mean(0), "scale": everything.std(0) + 1e-3}
    known = [_known(f, n, scale) for f, n in zip(features, counts, strict=True)]
    n_features = everything.shape[1]
    squared = (known[0] - known[1])[:, :n_features].square()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(known[0].shape[1], _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, n_features))
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2)
    for step in range(_STEPS):
        rows = torch.randint(len(squared), (min(512, len(squared)),), generator=generator)
        variance = network(known[0][rows]).exp() + network(known[1][rows]).exp() + 1e-6
        loss = (squared[rows] / variance + variance.log()).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / _STEPS)
        optimizer.step()
    return {**{name: value.detach() for name, value in network.state_dict().items()}, **scale}


def _learn_population(known: Tensor, seed: int) -> dict[str, Tensor]:
    # Needed by a training alone: every worker that encodes would wait a second for it.
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    n = len(known)
    projection = PCA(min(_COMPONENTS, n, known.shape[1]), whiten=True, random_state=seed).fit(known.numpy())
    z = projection.transform(known.numpy())
    mixture = GaussianMixture(max(1, min(_MIXTURE, n // 50)), reg_covar=1e-2, random_state=seed).fit(z)
    log_determinant = np.log(np.diagonal(mixture.precisions_cholesky_, axis1=1, axis2=2)).sum(1)
    constant = -0.5 * z.shape[1] * np.log(2 * np.pi)
    found = {
        "mean": projection.mean_,
        "axes": projection.components_,
        "spread": np.sqrt(projection.explained_variance_),
        "centres": mixture.means_,
        "precision": mixture.precisions_cholesky_,
        "log_weight": np.log(mixture.weights_) + log_determinant + constant,
    }
    return {name: torch.as_tensor(np.ascontiguousarray(value), dtype=torch.float32) for name, value in found.items()}


def simulate_like(model: Reconstructor[Any], photons: Photons, generator: torch.Generator) -> Photons:
    """New photons from the rates that a model reconstructs: what else might have been seen of the same sources.

    Their energies are drawn from those seen in the same band. A background region stays as it is, and gives the
    source's region as many photons as its scale says.

    Parameters
    ----------
    model : Reconstructor
    photons : Photons
        N detections.
    generator : torch.Generator
    """
    # Bins of all the time, gaps included, as short as the cells of good time.
    wanted = n_cells(photons) * photons.duration / photons.ontime.clamp(min=1e-12)
    bins = 2 ** wanted.clamp(DEFAULT_CELLS, MOST).log2().ceil().long()
    order = bins.argsort(stable=True)
    made = [
        _simulate_like(model, photons.select(rows), k, generator)
        for k in sorted(set(bins.tolist()))
        for rows in torch.split(order[bins[order] == k], _AT_ONCE // k)
    ]
    return Photons.concatenate(made).select(order.argsort())


def _simulate_like(model: Reconstructor[Any], photons: Photons, bins: int, generator: torch.Generator) -> Photons:
    n_bands, duration = photons.n_bands, photons.duration
    good = exposure_shares(photons, bins).double() * (duration / bins)[:, None]
    number = torch.poisson(model.reconstruct(photons, bins).rate * good[:, None], generator=generator).long()
    slot = torch.repeat_interleave(torch.arange(number.numel()), number.flatten())
    owner, band, cell = slot // (n_bands * bins), slot // bins % n_bands, slot % bins
    elapsed = (good.cumsum(1) - good)[owner, cell]
    good_time = elapsed + torch.rand(len(slot), generator=generator, dtype=torch.float64) * good[owner, cell]
    time = photons.time_at(owner, good_time)

    background = photons.background
    each = (1 / background.scale).nan_to_num(0.0)[background.owner]
    of_background = torch.repeat_interleave(
        torch.arange(len(background.time)), torch.poisson(each, generator=generator).long()
    )
    owner = torch.cat([owner, background.owner[of_background]])
    band = torch.cat([band, background.band[of_background]])
    time = torch.cat([time, background.time[of_background]])
    order = in_order(owner, time)
    owner, band, time = owner[order], band[order], time[order]
    return replace(
        photons,
        time=time,
        band=band,
        offsets=offsets_of(owner, len(photons)),
        energy=_energies_like(photons, owner, band, generator),
    )


def _energies_like(photons: Photons, owner: Tensor, band: Tensor, generator: torch.Generator) -> Tensor:
    """An energy seen of the same detection in the same band, for each; the middle of the range where there is none."""
    place = photons.owner * photons.n_bands + photons.band
    number = torch.bincount(place, minlength=len(photons) * photons.n_bands)
    wanted = owner * photons.n_bands + band
    among = (torch.rand(len(wanted), generator=generator) * number[wanted]).long()
    seen = torch.cat([photons.energy[place.argsort(stable=True)], torch.ones(1)])
    energy = seen[((number.cumsum(0) - number)[wanted] + among).clamp(max=len(seen) - 1)]
    return torch.where(number[wanted] > 0, energy, photons.energy_range.log().mean(1).exp()[owner])
