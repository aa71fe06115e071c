"""Training of any type of model on any number of workers.

A worker owns whole streams of parts: it reads their photons, and holds their detections' latents. A step's batch is
one slice of every stream, chosen by (seed, step, parts) alone, so that it is the same for any number of workers; the
network's gradient is the sum over it. What is reduced is that gradient, whose size does not depend on how many sources
there are; latents and their Adam state never leave their owner.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lexray.models.autodecoders.grid.training import LatentTable
from lexray.models.autodecoders.learner import Schedule, keyed_generator
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.sampler import DRAWS, LATENTS, VALIDATION, PartStream

#: Decay rates of the network's Adam moments.
_BETAS = (0.9, 0.99)
#: Standard deviation of latents before their first step.
_LATENT_SPREAD = 0.1
#: Validation detections scored at once.
_SCORED_AT_ONCE = 512


@dataclass(frozen=True)
class PartSize:
    """What is known of a part before it is read: how many detections to train on, and how many photons they have."""

    detections: int
    photons: int


class PartSource(Protocol):
    """Where a worker's detections come from."""

    @property
    def sizes(self) -> Mapping[int, PartSize]:
        """Of each part that this worker owns."""
        ...

    def read(self, part: int) -> tuple[Photons, Sequence[str]]:
        """A part's detections to train on, always in the same order, and their identifiers; called in a thread."""
        ...

    def validation(self) -> Mapping[int, Photons]:
        """Detections that are scored and never trained on, of the parts that this worker owns."""
        ...


@dataclass(frozen=True)
class InMemoryParts:
    """A `PartSource` of parts that are in memory already.

    Attributes
    ----------
    train, held : mapping of int to Photons
        Detections to train on and to score, by part.
    ids : mapping of int to sequence of str
        Identifiers of a part's training detections; by default they are numbered.
    """

    train: Mapping[int, Photons]
    held: Mapping[int, Photons] = field(default_factory=dict)
    ids: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @property
    def sizes(self) -> Mapping[int, PartSize]:
        """As `PartSource.sizes`."""
        return {part: PartSize(len(photons), len(photons.time)) for part, photons in self.train.items()}

    def read(self, part: int) -> tuple[Photons, Sequence[str]]:
        """As `PartSource.read`."""
        photons = self.train[part]
        return photons, self.ids.get(part) or [f"{part}:{row}" for row in range(len(photons))]

    def validation(self) -> Mapping[int, Photons]:
        """As `PartSource.validation`."""
        return self.held


class TrainingDiverged(Exception):
    """Steps without a finite loss or gradient kept coming.

    Parameters
    ----------
    detections : sequence of str
        Those that caused it, worst first; empty where no single one does.
    skipped : int
        Steps that were skipped so far.
    """

    def __init__(self, detections: Sequence[str], skipped: int) -> None:
        self.detections, self.skipped = list(detections), skipped
        shown = ", ".join(self.detections[:5]) + (f" and {len(detections) - 5} more" if len(detections) > 5 else "")
        whose = f"of {shown} " if shown else ""
        super().__init__(f"the loss or gradient {whose}is not finite; {skipped} steps were skipped")


@dataclass(frozen=True)
class _Held:
    """A part in memory."""

    data: Any
    counts: Tensor  # photons of each detection
    ids: Sequence[str]


@dataclass(frozen=True)
class _Share:
    """What a part gives to a batch."""

    part: int
    data: Any
    rows: Tensor


@dataclass(frozen=True)
class _Batch:
    """A worker's share of a step."""

    sample: Any
    shares: list[_Share]
    ids: list[str]
    n_photons: int


class AutodecoderTrainer:
    """One worker's share of a training.

    Parameters
    ----------
    settings : Schedule
        Of the type of model to train.
    source : Source
        Detections of the parts that this worker owns: whole streams, where stream = part mod `settings.part_streams`.
    device : torch.device, optional

    Attributes
    ----------
    learner : Learner
    step : int
        Steps done, skipped ones included.
    n_detections, n_photons : int
        To train on, over all workers.
    steps_per_epoch, total_steps : int
    skipped_steps : int
        Steps whose loss or gradient was not finite.
    bytes_reduced : int
        Summed over workers in steps so far, by this worker.
    """

    def __init__(self, settings: Schedule, source: PartSource, device: torch.device | None = None) -> None:
        self.settings, self.device = settings, device or torch.device("cpu")
        self.learner = settings.learner()
        self.network: nn.Module = self.learner.network.to(self.device)
        self._parameters = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, betas=_BETAS, weight_decay=settings.weight_decay
        )
        self._average = [p.detach().clone() for p in self._parameters] if settings.ema else []
        self._forward = _training_forward(self.network, settings, self.device)
        self._source, sizes = source, source.sizes
        self.latents = {
            part: _new_latents(settings.seed, part, size.detections, self.learner.latent_dim)
            for part, size in sorted(sizes.items())
            if self.learner.latent_dim
        }
        reader = ThreadPoolExecutor(1, thread_name_prefix="parts")
        self._streams: list[PartStream[_Held]] = [
            PartStream(
                stream,
                settings.part_streams,
                {part: size.detections for part, size in sizes.items() if part % settings.part_streams == stream},
                self._load,
                reader,
                settings.seed,
            )
            for stream in sorted({part % settings.part_streams for part in sizes})
        ]
        totals = torch.tensor(
            [sum(s.detections for s in sizes.values()), sum(s.photons for s in sizes.values())], dtype=torch.float64
        )
        self.n_detections, self.n_photons = (int(n) for n in self.sum_over_workers(totals).tolist())
        self.steps_per_epoch = max(1, round(self.n_detections / settings.batch_size))
        self.total_steps = settings.epochs * self.steps_per_epoch
        self._photons_per_step = max(1.0, self.n_photons / self.steps_per_epoch)
        self._held_out: tuple[Photons, Photons] | None = None
        self.step = 0
        self.skipped_steps = 0
        self.bytes_reduced = 0
        self._epoch_sums = [0.0, 0.0]  # nats and photons of this epoch's steps
        self._skipped_in_a_row = 0
        self._culprits: Counter[str] = Counter()
        self._evaluations_since_best = 0
        self._best: dict[str, Any] = {}

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or `patience` evaluations have brought nothing better."""
        stale = 0 < self.settings.patience <= self._evaluations_since_best
        return self.step >= self.total_steps or stale

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

    @property
    def loss(self) -> float:
        """Loss of the current epoch so far, or of the last one where none has begun, in nats per photon."""
        return self._epoch_sums[0] / max(self._epoch_sums[1], 1.0)

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
        batch = self._batch(self.epoch, self.step % self.steps_per_epoch)
        losses, latent_gradient = self._backward(batch)
        gradients = [_gradient(p).flatten() for p in self._parameters]
        own = [losses.detach().sum(), batch.n_photons, 0.0 if latent_gradient.isfinite().all() else math.inf]
        # One reduction a step, the loss with the gradient: a number that is not finite anywhere is so everywhere.
        flat = self.sum_over_workers(torch.cat([*gradients, torch.tensor(own, device=self.device)]))
        self.bytes_reduced += flat.numel() * flat.element_size()
        flat, (loss, n_photons, latents_diverge) = (
            flat[: -len(own)] / self._photons_per_step,
            flat[-len(own) :].tolist(),
        )
        norm = flat.norm()
        if self.step % self.steps_per_epoch == 0:
            self._epoch_sums = [0.0, 0.0]
        if math.isfinite(loss + latents_diverge) and bool(norm.isfinite()):
            factor = self.settings.rate_factor(self.step, self.total_steps)
            self._move_network(flat * (self.settings.grad_clip_norm / (norm + 1e-12)).clamp(max=1.0), factor)
            self._move_latents(batch, latent_gradient, factor)
            self._epoch_sums = [self._epoch_sums[0] + loss, self._epoch_sums[1] + n_photons]
            self._skipped_in_a_row = 0
        else:
            self._skip(self._not_finite(batch, losses, latent_gradient))
            loss = math.nan
        self.step += 1
        return float(loss / max(n_photons, 1.0))

    def _load(self, part: int) -> _Held:
        photons, ids = self._source.read(part)
        return _Held(self.learner.prepare(photons), photons.offsets.diff(), ids)

    def _batch(self, epoch: int, step: int) -> _Batch:
        samples: list[Any] = []
        shares: list[_Share] = []
        ids: list[str] = []
        n_photons = 0
        for stream in self._streams:
            generator = keyed_generator(self.settings.seed, DRAWS, epoch, step, stream.number)
            for part, held, rows in stream.slices(epoch, step, self.steps_per_epoch):
                samples.append(self.learner.draw(held.data, rows, generator))
                shares.append(_Share(part, held.data, rows))
                ids += [held.ids[row] for row in rows.tolist()]
                n_photons += int(held.counts[rows].sum())
        sample = self.learner.to(self.learner.join(samples), self.device) if samples else None
        return _Batch(sample, shares, ids, n_photons)

    def _backward(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Losses f[M] of a batch and the gradient f[M, D] of their sum with regard to its latents."""
        self.optimizer.zero_grad()
        none = torch.zeros(0, device=self.device)
        if batch.sample is None:
            return none, none
        latent = None
        if self.learner.latent_dim:
            rows = torch.cat([self.latents[share.part].value[share.rows] for share in batch.shares])
            latent = rows.to(self.device).requires_grad_()
        losses = self._losses(batch, latent)
        torch.autograd.backward(losses.sum())
        return losses.detach(), none if latent is None else _gradient(latent)

    def _losses(self, batch: _Batch, latent: Tensor | None) -> Tensor:
        self.network.train()
        with _replaced_forward(self.network, self._forward):
            losses: Tensor = self.learner.losses(batch.sample, latent)
        return losses

    def _move_network(self, flat: Tensor, factor: float) -> None:
        sizes = [p.numel() for p in self._parameters]
        for parameter, gradient in zip(self._parameters, torch.split(flat, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor
        self.optimizer.step()
        if self._average:
            # An average over few steps while there are few: the weights it began with are noise.
            decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)

    def _move_latents(self, batch: _Batch, gradient: Tensor, factor: float) -> None:
        if not self.latents or not batch.shares:
            return
        parts = torch.split(gradient.cpu(), [len(share.rows) for share in batch.shares])
        for share, moved in zip(batch.shares, parts, strict=True):
            self.latents[share.part].step(share.rows, moved, self.settings.latent_learning_rate * factor)

    def _not_finite(self, batch: _Batch, losses: Tensor, latent_gradient: Tensor) -> list[str]:
        """Detections of this worker's share whose loss or gradient is not finite."""
        bad = ~losses.isfinite()
        if len(latent_gradient):
            bad |= ~latent_gradient.isfinite().all(1)
        if len(losses) and not bad.any() and not all(_gradient(p).isfinite().all() for p in self._parameters):
            bad = self._gradients_not_finite(batch)
        return [name for name, is_bad in zip(batch.ids, bad.tolist(), strict=True) if is_bad]

    def _gradients_not_finite(self, batch: _Batch) -> Tensor:
        """Which detections' losses are finite and their gradients are not. Each is drawn alone: rare, and slow.

        In one batch, a gradient that is not finite reaches everybody's: 0 × ∞ is no number.
        """
        bad = []
        for share in batch.shares:
            for row in torch.split(share.rows, 1):
                sample = self.learner.draw(share.data, row, keyed_generator(self.settings.seed, DRAWS))
                alone = replace(batch, sample=self.learner.to(sample, self.device), shares=[replace(share, rows=row)])
                self._backward(alone)
                bad.append(not all(bool(_gradient(p).isfinite().all()) for p in self._parameters))
        return torch.tensor(bad)

    def _skip(self, detections: list[str]) -> None:
        self.skipped_steps += 1
        self._skipped_in_a_row += 1
        self._culprits.update(_gather(detections))
        worst = self._culprits.most_common()
        again = bool(worst) and worst[0][1] >= self.settings.max_skipped
        if again or self._skipped_in_a_row >= self.settings.max_skipped:
            raise TrainingDiverged([name for name, n in worst if n == worst[0][1]], self.skipped_steps)

    def evaluate(self) -> float:
        """Gain over a constant rate on held-out photons of the validation's detections; keeps the best network.

        Their photons are thinned to 80 %, the model sees these, and the other 20 % are scored.

        Returns
        -------
        float
            In bits per photon, over all workers; 0 where there is nothing to score.
        """
        start = self.mean_latent()
        with self._averaged():
            gain, n_photons = self.sum_over_workers(self._score(start)).tolist()
            gain = gain / max(n_photons, 1.0) / math.log(2.0)
            if n_photons and self.settings.patience:
                self._evaluations_since_best += 1
                if math.isfinite(gain) and gain > self._best.get("gain", -math.inf):
                    self._evaluations_since_best = 0
                    self._best = {"gain": gain, "step": self.step, **self._weights(start)}
        return float(gain)

    def _score(self, start: Tensor | None) -> Tensor:
        """Gains in nats and the photons they are of, over this worker's validation: f8[2]."""
        if self._held_out is None:
            # By part, so that which photons are held out does not depend on who owns it.
            pairs = [
                photons.thin(0.8, keyed_generator(self.settings.seed, VALIDATION, part))
                for part, photons in sorted(self._source.validation().items())
                if len(photons)
            ]
            if not pairs:
                return torch.zeros(2, dtype=torch.float64)
            self._held_out = Photons.concatenate([fit for fit, _ in pairs]), Photons.concatenate([p for _, p in pairs])
        fit, held = self._held_out
        self.network.eval()
        total = torch.zeros((), dtype=torch.float64)
        for rows in torch.split(torch.arange(len(fit)), _SCORED_AT_ONCE):
            total += self.learner.gains(fit.select(rows), held.select(rows), start).double().sum().cpu()
        return torch.stack([total, torch.tensor(len(held.time), dtype=torch.float64)])

    def mean_latent(self) -> Tensor | None:
        """Mean over all detections of all workers, f[D]: where the search for a new one's latent begins."""
        if not self.learner.latent_dim:
            return None
        total = torch.zeros(self.learner.latent_dim)
        for table in self.latents.values():
            total += table.value.sum(0)
        return self.sum_over_workers(total) / max(self.n_detections, 1)

    def result(self) -> dict[str, Any]:
        """What the training is for, the best network where `patience` is set and it was evaluated, else the last.

        Returns
        -------
        dict
            'network': its state dict; 'mean_latent': f[D] or None; 'gain': bits per photon where it is known; 'step'.
        """
        start = self.mean_latent()
        if self._best:
            return self._best
        with self._averaged():
            return {"step": self.step, **self._weights(start)}

    def _weights(self, mean_latent: Tensor | None) -> dict[str, Any]:
        network = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        return {"network": network, "mean_latent": mean_latent}

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The network with its weights' moving average, where there is one."""
        if not self._average:
            yield
            return
        own = [p.detach().clone() for p in self._parameters]
        torch._foreach_copy_([p.detach() for p in self._parameters], self._average)
        try:
            yield
        finally:
            torch._foreach_copy_([p.detach() for p in self._parameters], own)

    def state(self) -> dict[str, Any]:
        """What all workers share: network, optimiser, and where the training stands, within an epoch too."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self._average,
            "best": self._best,
            "step": self.step,
            "epoch_sums": self._epoch_sums,
            "evaluations_since_best": self._evaluations_since_best,
            "skipped_steps": self.skipped_steps,
            "skipped_in_a_row": self._skipped_in_a_row,
            "culprits": dict(self._culprits),
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
        self._average = [value.to(self.device) for value in state["average"]]
        self._best = state["best"]
        self.step = state["step"]
        self._epoch_sums = list(state["epoch_sums"])
        self._evaluations_since_best = state["evaluations_since_best"]
        self.skipped_steps, self._skipped_in_a_row = state["skipped_steps"], state["skipped_in_a_row"]
        self._culprits = Counter(state["culprits"])
        for part, table in self.latents.items():
            table.load_state(latents(part))

    def sum_over_workers(self, tensor: Tensor) -> Tensor:
        """Sum over workers, which all must call it; where they have GPUs, their backend takes nothing else."""
        if not (dist.is_available() and dist.is_initialized()):
            return tensor
        moved = tensor.to(self.device)
        dist.all_reduce(moved)
        return moved.to(tensor.device)


def _training_forward(network: nn.Module, settings: Schedule, device: torch.device) -> Callable[..., Any]:
    """The network's forward pass as it is trained: compiled, in mixed precision, or as it is."""
    forward = torch.compile(network.forward) if settings.compile else network.forward
    if settings.precision == "float32":
        return forward

    def mixed(*inputs: Any, **named: Any) -> Any:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            out = forward(*inputs, **named)
        return tree_map(lambda t: t.float() if isinstance(t, Tensor) and t.is_floating_point() else t, out)

    return mixed


@contextlib.contextmanager
def _replaced_forward(network: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`network` calls `forward` within the block; outside it, validation is in float32 and copies are plain."""
    network.forward = forward
    try:
        yield
    finally:
        del network.forward


def _gradient(tensor: Tensor) -> Tensor:
    """A leaf's gradient; zeros on a worker that had no row in the batch."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _gather(names: list[str]) -> list[str]:
    """The names of all workers."""
    if not (dist.is_available() and dist.is_initialized()):
        return names
    everyone: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, names)
    return [name for one in everyone for name in one]


def _new_latents(seed: int, part: int, n: int, dim: int) -> LatentTable:
    table = LatentTable(n, dim)
    table.value = _LATENT_SPREAD * torch.randn(n, dim, generator=keyed_generator(seed, LATENTS, part))
    return table
