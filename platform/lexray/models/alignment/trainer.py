"""Training of the two towers on a few hundred to many thousands of sources, on any number of workers.

What decides the result on few sources is not the optimiser: each epoch shows another detection of a source, features
are disturbed, text vectors come down to their leading components, and the epoch that is kept is the one whose space
retrieves the validation sources best.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lexray.models.alignment.contrastive import MAX_SCALE, distributed_symmetric_info_nce, symmetric_info_nce
from lexray.models.alignment.evaluation import retrieval_metrics
from lexray.models.alignment.pairs import Pairs
from lexray.models.alignment.towers import Regularisation, Sizes, Towers
from lexray.models.settings import setting

#: What `Trainer.run_epoch` reports, and the direction in which each is better.
METRICS = {"train/loss": "min", "val/loss": "min", "val/recall@10": "max", "val/median_rank": "min"}


@dataclass(frozen=True)
class AlignmentSettings:
    """Parameters of a training.

    Attributes
    ----------
    dimension, hidden, members, text_components : int
        As for `Sizes`.
    whitening_shrinkage : float
        Of the text vectors' principal components; see `Standardisation.fit_whitening`.
    input_dropout, dropout, noise : float
        As for `Regularisation`.
    temperature : float
        Where the learned one starts.
    learning_rate, weight_decay : float
        AdamW's; the temperature does not decay.
    batch_size : int
        Largest number of sources a step, over all workers; each is a negative of the others.
    epochs, patience : int
        At most so many; fewer where so many have passed without a better validation loss.
    seed : int
    """

    dimension: int = setting(64, "numbers of a vector in the shared space", ge=2)
    hidden: int = setting(128, "hidden units of a tower's member", ge=1)
    members: int = setting(4, "independent members a tower averages over", ge=1)
    text_components: int = setting(48, "principal components of the text vectors", ge=1)
    whitening_shrinkage: float = setting(3.0, "how far faint components are kept faint; 0 whitens fully", ge=0)
    input_dropout: float = setting(0.1, "share of the features set to 0", ge=0, lt=1)
    dropout: float = setting(0.3, "share of the hidden units set to 0", ge=0, lt=1)
    noise: float = setting(0.1, "noise on features, in their standard deviations", ge=0)
    temperature: float = setting(0.1, "where the learned temperature starts", ge=0.01)
    learning_rate: float = setting(5e-3, "of AdamW", gt=0)
    weight_decay: float = setting(0.05, "of AdamW", ge=0)
    batch_size: int = setting(512, "largest number of sources a step, over all workers", ge=2)
    epochs: int = setting(200, "at most so many", ge=1)
    patience: int = setting(30, "epochs without a better validation loss before it ends", ge=1)
    seed: int = setting(0, "of weights, batches and noise", ge=0)


class AlignmentTrainer:
    """One worker's share of a training; with several, each computes its share of every batch.

    Parameters
    ----------
    settings : AlignmentSettings
    train, val : Pairs
        The same on all workers.
    n_bands : int
        B, how many of the X-ray features are log-rates.
    device : torch.device, optional
    """

    def __init__(
        self, settings: AlignmentSettings, train: Pairs, val: Pairs, n_bands: int, device: torch.device | None = None
    ) -> None:
        self.settings = settings
        self.device = device or torch.device("cpu")
        self.train, self.val = train.to(self.device), val.to(self.device)
        self.towers = _new_towers(settings, train, n_bands).to(self.device)
        self.rank, self.workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        on_gpu = [self.device] if self.device.type == "cuda" else None
        self._model = DistributedDataParallel(self.towers, on_gpu) if self.workers > 1 else self.towers
        self._loss = distributed_symmetric_info_nce if self.workers > 1 else symmetric_info_nce
        decaying = [p for p in self.towers.parameters() if p is not self.towers.log_scale]
        groups: list[dict[str, Any]] = [
            {"params": decaying, "weight_decay": settings.weight_decay},
            {"params": [self.towers.log_scale], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self._regularisation = Regularisation(settings.input_dropout, settings.dropout, settings.noise)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self._best_weights: dict[str, Tensor] = {}

    @property
    def best_epoch(self) -> int:
        """Epoch, from 1, with the lowest validation loss so far."""
        return 1 + int(np.argmin([row["val/loss"] for row in self.history]))

    @property
    def finished(self) -> bool:
        """Whether all epochs have run, or no better one has come for too long."""
        return self.epoch >= self.settings.epochs or (
            self.epoch > 0 and self.epoch - self.best_epoch >= self.settings.patience
        )

    def run_epoch(self) -> dict[str, float]:
        """One pass over the training's sources, then retrieval of the validation's.

        Returns
        -------
        dict
            `METRICS` and the temperature.
        """
        together = self._generator(0)
        own = self._generator(1 + self.rank, self.device)
        n_batches = math.ceil(len(self.train) / self.settings.batch_size)
        losses = [
            self._step(batch, together, own)
            for batch in torch.randperm(len(self.train), generator=together).tensor_split(n_batches)
        ]
        metrics = self._agree(
            {
                "train/loss": float(torch.stack(losses).mean()),
                **retrieval_metrics(self.towers, self.val),
                "temperature": float(1 / self.towers.log_scale.detach().exp().clamp(max=MAX_SCALE)),
            }
        )
        self.epoch += 1
        self.history.append(metrics)
        if self.best_epoch == self.epoch:
            self._best_weights = {name: value.detach().clone() for name, value in self.towers.state_dict().items()}
        return metrics

    def _step(self, sources: Tensor, together: torch.Generator, own: torch.Generator) -> Tensor:
        # All workers draw the same batch and take equal shares of it; what is left over comes in another epoch.
        sources = sources.to(self.device)
        rows = self.train.draw(sources, together)
        share = len(sources) // self.workers
        mine = slice(self.rank * share, (self.rank + 1) * share)
        xray, text, log_scale = self._model(
            self.train.xray[rows[mine]], self.train.text[sources[mine]], self._regularisation, own
        )
        # Members do not see one another: each has a loss of its own.
        loss = torch.stack([self._loss(x, t, log_scale) for x, t in zip(xray, text, strict=True)]).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def best_towers(self) -> Towers:
        """The towers as they were after the best epoch."""
        towers = Towers(self.towers.sizes, self.settings.temperature, torch.Generator())
        towers.load_state_dict(self._best_weights)
        return towers

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs; tensors and plain values only."""
        return {
            "settings": asdict(self.settings),
            "epoch": self.epoch,
            "history": self.history,
            "towers": self.towers.state_dict(),
            "best": self._best_weights,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.towers.load_state_dict(state["towers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.history, self._best_weights = state["epoch"], state["history"], state["best"]

    def _generator(self, stream: int, device: torch.device | None = None) -> torch.Generator:
        # By epoch, and not carried along: a resumed training draws what an uninterrupted one would have drawn.
        seed = np.random.SeedSequence([self.settings.seed, self.epoch, stream]).generate_state(1, np.uint64)
        return torch.Generator(device or "cpu").manual_seed(int(seed[0]) >> 1)

    def _agree(self, metrics: dict[str, float]) -> dict[str, float]:
        """Means over the workers: machines that round differently would else stop at different epochs."""
        if self.workers == 1:
            return metrics
        values = torch.tensor(list(metrics.values()), dtype=torch.float32, device=self.device)
        dist.all_reduce(values)
        return dict(zip(metrics, (values / self.workers).tolist(), strict=True))


def _new_towers(settings: AlignmentSettings, train: Pairs, n_bands: int) -> Towers:
    sizes = Sizes(
        latent_dim=train.xray.shape[1] - n_bands,
        n_bands=n_bands,
        text_dim=train.text.shape[1],
        text_components=min(settings.text_components, train.text.shape[1]),
        hidden=settings.hidden,
        dimension=settings.dimension,
        members=settings.members,
    )
    towers = Towers(sizes, settings.temperature, torch.Generator().manual_seed(settings.seed))
    towers.xray.standardise.fit_scale(train.xray)
    towers.text.standardise.fit_whitening(train.text, settings.whitening_shrinkage)
    return towers
