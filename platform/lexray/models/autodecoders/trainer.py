"""Training of any type of model on any number of workers.

A worker owns whole streams of parts: it reads their photons, and holds their detections' latents. A step's batch is
one slice of every stream, chosen by (seed, step, parts) alone, so that it is the same for any number of workers; the
network's gradient is the sum over it. What is reduced is that gradient, whose size does not depend on how many sources
there are; latents and their Adam state never leave their owner.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lexray.models.autodecoders.batches import Batch, Batches
from lexray.models.autodecoders.evaluation import HeldOutPhotons
from lexray.models.autodecoders.forward import TrainingForward, gradient, moving_average
from lexray.models.autodecoders.latents import LatentTable
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.sampler import PartSource
from lexray.models.autodecoders.state import TrainingState
from lexray.models.autodecoders.workers import names_of_all, sum_over_workers

#: Decay rates of the network's Adam moments.
_BETAS = (0.9, 0.99)


class AutodecoderTrainer:
    """One worker's share of a training.

    Parameters
    ----------
    settings : Schedule
        Of the type of model to train.
    source : PartSource
        Detections of the parts that this worker owns: whole streams, where stream = part mod `settings.part_streams`.
    device : torch.device, optional
    initial : mapping of str to Tensor, optional
        State dict of the network to begin with, in place of one drawn from the seed.

    Attributes
    ----------
    learner : Learner
    latents : dict of int to LatentTable
        Of the parts that this worker owns.
    progress : TrainingState
    n_detections, n_photons : int
        To train on, over all workers.
    steps_per_epoch, total_steps : int
    bytes_reduced : int
        Summed over workers in steps so far, by this worker.
    """

    def __init__(
        self,
        settings: Schedule,
        source: PartSource,
        device: torch.device | None = None,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.settings, self.device = settings, device or torch.device("cpu")
        self.learner = settings.learner()
        if initial is not None:
            self.learner.network.load_state_dict(initial)
        self.network = self.learner.network.to(self.device)
        self._parameters = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, betas=_BETAS, weight_decay=settings.weight_decay
        )
        self._average = moving_average(self.network, settings.ema) if settings.ema else None
        self.learner.network = TrainingForward(self.network, settings, self.device)
        sizes = source.sizes
        self.latents = {
            part: LatentTable.drawn(settings.seed, part, size.detections, self.learner.latent_dim)
            for part, size in sorted(sizes.items())
            if self.learner.latent_dim
        }
        self._batches = Batches(self.learner, source, settings, self.device)
        self._held_out = HeldOutPhotons(source, settings.seed)
        totals = torch.tensor(
            [sum(s.detections for s in sizes.values()), sum(s.photons for s in sizes.values())], dtype=torch.float64
        )
        self.n_detections, self.n_photons = (int(n) for n in sum_over_workers(totals, self.device).tolist())
        self.steps_per_epoch = max(1, round(self.n_detections / settings.batch_size))
        self.total_steps = settings.epochs * self.steps_per_epoch
        self._photons_per_step = max(1.0, self.n_photons / self.steps_per_epoch)
        self.progress = TrainingState()
        self.bytes_reduced = 0

    @property
    def step(self) -> int:
        """Steps done, skipped ones included."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or `patience` evaluations have brought nothing better."""
        return self.step >= self.total_steps or (0 < self.settings.patience <= self.progress.evaluations_since_best)

    @property
    def loss(self) -> float:
        """Loss of the current epoch so far, or of the last one where none has begun, in nats per photon."""
        return self.progress.nats / max(self.progress.photons, 1.0)

    def run_epoch(self) -> float:
        """Steps up to the end of the current epoch.

        Returns
        -------
        float
            Loss of the whole epoch in nats per photon, over all workers.

        Raises
        ------
        TrainingDiverged
            As `run_step`.
        """
        end = (self.epoch + 1) * self.steps_per_epoch
        while self.step < end:
            self.run_step()
        return self.loss

    def run_step(self) -> float:
        """One step: the same batch, and the same new weights, on any number of workers.

        Returns
        -------
        float
            Loss of the batch in nats per photon; not finite where the step was skipped.

        Raises
        ------
        TrainingDiverged
            If too many steps were not finite: see `Schedule.max_skipped`.
        """
        within_epoch = self.step % self.steps_per_epoch
        batch = self._batches.draw(self.epoch, within_epoch, self.steps_per_epoch)
        losses, latent_gradient = self._backward(batch)
        own = [losses.sum(), batch.n_photons, 0.0 if latent_gradient.isfinite().all() else math.inf]
        # One reduction a step, the loss with the gradient: a number that is not finite anywhere is so everywhere.
        gradients = [gradient(p).flatten() for p in self._parameters]
        flat = sum_over_workers(torch.cat([*gradients, torch.tensor(own, device=self.device)]), self.device)
        self.bytes_reduced += flat.numel() * flat.element_size()
        loss, n_photons, latents_diverge = flat[-len(own) :].tolist()
        flat = flat[: -len(own)] / self._photons_per_step
        if within_epoch == 0:
            self.progress.nats = self.progress.photons = 0.0
        if math.isfinite(loss + latents_diverge) and bool(flat.norm().isfinite()):
            factor = self.settings.rate_factor(self.step, self.total_steps)
            self._move_network(flat, factor)
            self._move_latents(batch, latent_gradient, factor)
            self.progress.accept(loss, n_photons)
        else:
            culprits = names_of_all(self._not_finite(batch, losses, latent_gradient))
            self.progress.skip(culprits, self.settings.max_skipped)
            loss = math.nan
        self.progress.step += 1
        return float(loss / max(n_photons, 1.0))

    def _backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses f[M] of a batch and the gradient f[M, D] of their sum with regard to its latents."""
        self.optimizer.zero_grad()
        none = torch.zeros(0, device=self.device)
        if batch.sample is None:
            return none, none
        latent = None
        if self.latents:
            rows = torch.cat([self.latents[share.number].value[share.rows] for share in batch.shares])
            latent = rows.to(self.device).requires_grad_()
        self.network.train()
        losses: Tensor = self.learner.losses(batch.sample, latent)
        torch.autograd.backward(losses.sum())
        return losses.detach(), none if latent is None else gradient(latent)

    def _move_network(self, flat: Tensor, factor: float) -> None:
        """One step of the network along a gradient, all parameters' behind one another."""
        clipped = flat * (self.settings.grad_clip_norm / (flat.norm() + 1e-12)).clamp(max=1.0)
        sizes = [p.numel() for p in self._parameters]
        for parameter, own in zip(self._parameters, torch.split(clipped, sizes), strict=True):
            parameter.grad = own.view_as(parameter)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor
        self.optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self.network)

    def _move_latents(self, batch: Batch, latent_gradient: Tensor, factor: float) -> None:
        if not self.latents or not batch.shares:
            return
        parts = torch.split(latent_gradient.cpu(), [len(share.rows) for share in batch.shares])
        for share, moved in zip(batch.shares, parts, strict=True):
            self.latents[share.number].step(share.rows, moved, self.settings.latent_learning_rate * factor)

    def _not_finite(self, batch: Batch, losses: Tensor, latent_gradient: Tensor) -> list[str]:
        """Detections of this worker's share whose loss or gradient is not finite."""
        bad = ~losses.isfinite()
        if len(latent_gradient):
            bad |= ~latent_gradient.isfinite().all(1)
        if len(losses) and not bad.any() and not self._gradients_are_finite():
            # In one batch, a gradient that is not finite reaches everybody's, as 0 × ∞ is no number: rare, and slow.
            bad = torch.tensor([self._diverges(one) for one in self._batches.alone(batch)])
        return [name for name, is_bad in zip(batch.ids, bad.tolist(), strict=True) if is_bad]

    def _diverges(self, batch: Batch) -> bool:
        self._backward(batch)
        return not self._gradients_are_finite()

    def _gradients_are_finite(self) -> bool:
        return all(bool(gradient(p).isfinite().all()) for p in self._parameters)

    def evaluate(self) -> float:
        """Gain over a constant rate on held-out photons of the validation's detections; keeps the best network.

        Their photons are thinned to 80 %, the model sees these, and the other 20 % are scored.

        Returns
        -------
        float
            In bits per photon, over all workers; 0 where there is nothing to score.
        """
        start, trained = self.mean_latent(), self.learner.network
        self.learner.network = self._kept  # as it is kept in the end, in float32
        try:
            score = self._held_out.score(self.learner, start)
        finally:
            self.learner.network = trained
        nats, n_photons = sum_over_workers(score, self.device).tolist()
        gain = float(nats / max(n_photons, 1.0) / math.log(2.0))
        if n_photons and self.settings.patience:
            self.progress.judge(gain, lambda: self._weights(start))
        return gain

    def mean_latent(self) -> Tensor | None:
        """Mean over all detections of all workers, f[D]: where the search for a new one's latent begins."""
        if not self.learner.latent_dim:
            return None
        total = sum((table.value.sum(0) for table in self.latents.values()), torch.zeros(self.learner.latent_dim))
        return sum_over_workers(total, self.device) / max(self.n_detections, 1)

    def result(self) -> dict[str, Any]:
        """What the training is for, the best network where `patience` is set and it was evaluated, else the last.

        Returns
        -------
        dict
            'network': its state dict; 'mean_latent': f[D] or None; 'gain': bits per photon where it is known; 'step'.
        """
        start = self.mean_latent()
        return self.progress.best or {"step": self.step, **self._weights(start)}

    def _weights(self, mean_latent: Tensor | None) -> dict[str, Any]:
        return {
            "network": {name: value.detach().cpu().clone() for name, value in self._kept.state_dict().items()},
            "mean_latent": mean_latent,
        }

    @property
    def _kept(self) -> nn.Module:
        """The network with the moving average of its weights, where there is one."""
        return self.network if self._average is None else self._average.module

    def state(self) -> dict[str, Any]:
        """What all workers share: network, optimiser, and where the training stands, within an epoch too."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "progress": dict(vars(self.progress)),
        }

    def latent_states(self) -> dict[int, dict[str, Tensor]]:
        """Latents with their Adam state, by part, of the parts that this worker owns."""
        return {part: table.state() for part, table in self.latents.items()}

    def load_state(self, state: Mapping[str, Any], latents: Callable[[int], dict[str, Tensor]]) -> None:
        """Go on where `state` and `latent_states` were taken, by any number of workers.

        Parameters
        ----------
        state : mapping
        latents : callable
            Gives a part's latent state; called for the parts that this worker owns.
        """
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.progress = TrainingState(**state["progress"])
        for part, table in self.latents.items():
            table.load_state(latents(part))
