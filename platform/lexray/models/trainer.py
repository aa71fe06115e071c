"""Training of the `grid` autodecoder on any number of workers.

Each worker holds whole parts: their photons and their latents. A step's batch is the union of one slice of every part,
chosen by (seed, epoch, step) alone, so that it is the same for any number of workers; the decoder's gradient is the sum
over it. What is reduced is the decoder's gradient, whose size does not depend on the number of sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lexray.models.autodecoder import LatentTable, Penalties, cosine, fit_latents, losses
from lexray.models.grid import GridDecoder
from lexray.models.likelihood import cells, profile_log_likelihood
from lexray.models.photons import Photons


@dataclass(frozen=True)
class Settings:
    """Parameters of a training. The defaults suit a thousand detections; more need fewer epochs.

    Attributes
    ----------
    latent_dim, n_bands, n_knots, width : int
        Of the decoder.
    epochs : int
    batch : int
        Detections a step, over all workers.
    learning_rate, latent_learning_rate : float
        Of the decoder and of the latents; both fall along a cosine.
    weight_decay, clip : float
        Of the decoder: AdamW's decay, and the largest norm of its gradient per photon.
    penalties : Penalties
    fit_steps, fit_learning_rate : int, float
        Adam steps for new detections, the decoder held fixed, and their rate.
    seed : int
    """

    latent_dim: int = 64
    n_bands: int = 3
    n_knots: int = 256
    width: int = 256
    epochs: int = 120
    batch: int = 128
    learning_rate: float = 3e-3
    latent_learning_rate: float = 5e-2
    weight_decay: float = 1e-4
    clip: float = 1.0
    penalties: Penalties = field(default_factory=Penalties)
    fit_steps: int = 200
    fit_learning_rate: float = 0.1
    seed: int = 0

    def decoder(self) -> GridDecoder:
        """A decoder of these sizes, its weights drawn from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return GridDecoder(self.latent_dim, self.n_bands, self.n_knots, self.width)


@dataclass
class Part:
    """One part's detections and their latents."""

    photons: Photons
    latents: LatentTable


class Trainer:
    """One worker's share of a training.

    Parameters
    ----------
    settings : Settings
    photons : mapping of int to Photons
        The training's detections by part, of the parts that this worker owns.
    """

    def __init__(self, settings: Settings, photons: Mapping[int, Photons]) -> None:
        self.settings = settings
        self.decoder = settings.decoder()
        self.optimizer = torch.optim.AdamW(
            self.decoder.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
        )
        self.parts = {
            number: Part(mine, _new_latents(settings, number, len(mine))) for number, mine in sorted(photons.items())
        }
        self.epoch = 0
        self.skipped_steps = 0
        totals = torch.tensor(
            [[len(p.photons), len(p.photons.time)] for p in self.parts.values()] or [[0, 0]], dtype=torch.float64
        ).sum(0)
        n_detections, n_photons = _sum_over_workers(totals).tolist()
        self.steps_per_epoch = max(1, round(n_detections / settings.batch))
        self._photons_per_step = max(1.0, n_photons / self.steps_per_epoch)
        self.n_detections, self.n_photons = float(n_detections), float(n_photons)

    def run_epoch(self) -> float:
        """One pass over all detections.

        Returns
        -------
        float
            Penalised negative log-likelihood in nats per photon, over all workers.
        """
        orders = {number: self._order(number, part) for number, part in self.parts.items()}
        total = torch.zeros(1, dtype=torch.float64)
        for step in range(self.steps_per_epoch):
            factor = cosine(self.epoch * self.steps_per_epoch + step, self.settings.epochs * self.steps_per_epoch)
            self.optimizer.zero_grad()
            # Slices of one part differ by a row in length; turning them by part evens out the batches.
            rows = {n: order[(step + n) % self.steps_per_epoch] for n, order in orders.items()}
            total += self._accumulate(rows, self.settings.latent_learning_rate * factor)
            self._step_decoder(self.settings.learning_rate * factor)
        self.epoch += 1
        return float(_sum_over_workers(total) / max(self.n_photons, 1.0))

    def _order(self, number: int, part: Part) -> tuple[Tensor, ...]:
        generator = _generator(self.settings.seed, number, 1 + self.epoch)
        return torch.randperm(len(part.photons), generator=generator).tensor_split(self.steps_per_epoch)

    def _accumulate(self, rows: Mapping[int, Tensor], latent_rate: float) -> float:
        """Add a batch's decoder gradient, move its latents, and return its loss in nats."""
        chosen = [(self.parts[n], r) for n, r in rows.items() if len(r)]
        if not chosen:
            return 0.0
        batch = Photons.concatenate([part.photons.select(r) for part, r in chosen])
        latent = torch.cat([part.latents.value[r] for part, r in chosen]).requires_grad_()
        loss = losses(self.decoder, latent, cells(batch, self.settings.n_knots), self.settings.penalties).sum()
        torch.autograd.backward(loss)
        gradients = torch.split(_gradient(latent), [len(r) for _, r in chosen])
        for (part, r), gradient in zip(chosen, gradients, strict=True):
            part.latents.step(r, gradient, latent_rate)
        return float(loss.detach())

    def _step_decoder(self, learning_rate: float) -> None:
        parameters = list(self.decoder.parameters())
        flat = torch.cat([_gradient(p).flatten() for p in parameters])
        flat = _sum_over_workers(flat) / self._photons_per_step
        norm = flat.norm()
        if not torch.isfinite(norm):
            self.skipped_steps += 1
            return
        flat *= (self.settings.clip / (norm + 1e-12)).clamp(max=1.0)
        for parameter, gradient in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()

    def mean_latent(self) -> Tensor:
        """Mean over all detections of all workers, f[D]: where the search for a new one's latent begins."""
        total = sum((p.latents.value.sum(0) for p in self.parts.values()), torch.zeros(self.settings.latent_dim))
        return _sum_over_workers(total) / max(self.n_detections, 1.0)

    def held_out_gain(self, validation: Photons) -> float:
        """Gain over a constant rate on held-out photons of new detections, in bits per photon, over all workers.

        Their photons are thinned to 80 %, latents are fitted to these, and the other 20 % are scored.
        """
        fitted_to, held_out = validation.thin(0.8, torch.Generator().manual_seed(self.settings.seed))
        start = self.mean_latent()
        score = torch.zeros(2, dtype=torch.float64)
        if len(validation):
            data, rest = cells(fitted_to, self.settings.n_knots), cells(held_out, self.settings.n_knots)
            s = self.settings
            latent = fit_latents(
                self.decoder, data, s.penalties, start=start, steps=s.fit_steps, learning_rate=s.fit_learning_rate
            )
            with torch.no_grad():
                mean, deviation = self.decoder(latent)
                fit = profile_log_likelihood(mean[:, None] + deviation, rest)
                constant = profile_log_likelihood(torch.zeros_like(deviation), rest)
            score = torch.stack([(fit - constant).sum(), rest.counts.sum()]).double()
        gain, n_photons = _sum_over_workers(score).tolist()
        return float(gain / max(n_photons, 1.0) / torch.log(torch.tensor(2.0)))

    def network_state(self) -> dict[str, object]:
        """Decoder, optimiser and progress: what all workers share."""
        return {"decoder": self.decoder.state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": self.epoch}

    def load_network_state(self, state: dict[str, object]) -> None:
        """Continue from `network_state`."""
        self.decoder.load_state_dict(state["decoder"])  # type: ignore[arg-type]
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        self.epoch = int(state["epoch"])  # type: ignore[call-overload]


def _gradient(tensor: Tensor) -> Tensor:
    """A leaf's gradient; zeros on a worker that had no row in the batch."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _new_latents(settings: Settings, part: int, n: int) -> LatentTable:
    table = LatentTable(n, settings.latent_dim)
    table.value = 0.1 * torch.randn(n, settings.latent_dim, generator=_generator(settings.seed, part, 0))
    return table


def _generator(*key: int) -> torch.Generator:
    """Generator of its own for each key, the same on every machine."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def _sum_over_workers(tensor: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor
