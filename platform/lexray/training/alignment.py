"""Training of the alignment on Ray Train: workers, checkpoints, and what is kept of it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow.fs
import ray.train
from ray.train import Checkpoint
from ray.train.torch import get_device

from lexray.models.alignment.trainer import AlignmentSettings, AlignmentTrainer
from lexray.runtime import ray_session, tracking
from lexray.runtime.progress import Progress
from lexray.tables.files import filesystem
from lexray.training.pairs import PairedTables
from lexray.training.ray_train import RayTraining, read_checkpoint, report

#: Called on the first worker after each epoch with the epoch's number, from 1, and its metrics.
OnEpoch = Callable[[int, dict[str, float]], None]

_STATE = "trainer.pt"


@dataclass(frozen=True)
class AlignmentTraining(RayTraining):
    """How an alignment is trained on Ray.

    Attributes
    ----------
    settings : AlignmentSettings
    checkpoint_every : int
        Epochs between two checkpoints.
    """

    command: ClassVar = "train alignment"

    settings: AlignmentSettings
    checkpoint_every: int

    def fit(
        self, pairs: PairedTables, run: tracking.MlflowRun, progress: Progress, on_epoch: OnEpoch | None = None
    ) -> AlignmentTrainer:
        """Train on Ray workers, and return the trainer as the last checkpoint left it.

        A driver that was killed continues from the checkpoints when it is started again with the same `name`.

        Parameters
        ----------
        pairs : PairedTables
            As `read_pairs` gives them.
        run : MlflowRun
            Where metrics go.
        progress : Progress
        on_epoch : callable, optional
            A hook into the first worker.

        Raises
        ------
        LexrayError
            If workers failed more often than `max_failures`.
        """
        with progress.task("epochs", total=self.settings.epochs) as task, ray_session.relay_progress(task) as queue:
            loop = {
                "settings": self.settings,
                "checkpoint_every": self.checkpoint_every,
                "pairs": ray.put(pairs),
                "run": (run.uri, run.run_id),
                "progress": queue,
                "on_epoch": on_epoch,
            }
            last = self.run_workers(_train, loop, progress)
        done = AlignmentTrainer(self.settings, pairs.train, pairs.val, pairs.n_bands)
        _restore(done, last)
        self.forget()
        return done


def save_towers(out: str, trainer: AlignmentTrainer, made_with: dict[str, str]) -> None:
    """Write the towers of the best epoch to a folder or an object store.

    Parameters
    ----------
    out : str
        Folder or URI.
    trainer : AlignmentTrainer
    made_with : dict of str
        The models whose vectors the towers take.
    """
    system, root = filesystem(out)
    with tempfile.TemporaryDirectory() as folder:
        trainer.best_towers().save(folder, made_with)
        system.create_dir(root, recursive=True)
        pyarrow.fs.copy_files(folder, root, destination_filesystem=system)


def _train(loop: dict[str, Any]) -> None:
    """What each worker does."""
    pairs: PairedTables = ray.get(loop["pairs"])
    trainer = AlignmentTrainer(loop["settings"], pairs.train, pairs.val, pairs.n_bands, get_device())
    run = tracking.reopen(*loop["run"])
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        _restore(trainer, checkpoint)
    reported = trainer.epoch
    logged = run.last_step("val/loss") if trainer.rank == 0 else 0
    while not trainer.finished:
        metrics = trainer.run_epoch()
        if trainer.rank == 0 and loop["on_epoch"] is not None:
            loop["on_epoch"](trainer.epoch, metrics)
        if trainer.epoch % loop["checkpoint_every"] and not trainer.finished:
            continue
        if trainer.rank == 0:
            run.series(trainer.history[logged:], logged + 1)
            logged = max(logged, trainer.epoch)
            loop["progress"].put((trainer.epoch - reported, f"val/loss {metrics['val/loss']:.3f}"))
        reported = trainer.epoch
        report(metrics, {_STATE: trainer.state_dict()} if trainer.rank == 0 else {})


def _restore(trainer: AlignmentTrainer, checkpoint: Checkpoint) -> None:
    with checkpoint.as_directory() as folder:
        trainer.load_state_dict(read_checkpoint(folder, _STATE))
