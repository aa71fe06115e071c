"""Training of the alignment on Ray Train: workers, checkpoints, and what is kept of it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer, get_device

from lexray.errors import LexrayError
from lexray.models.alignment.trainer import AlignmentSettings, AlignmentTrainer
from lexray.runtime import ray_session, tracking
from lexray.runtime.progress import Progress
from lexray.tables.files import filesystem
from lexray.training.pairs import PairedTables

#: Called on the first worker after each epoch with the epoch's number, from 1, and its metrics.
OnEpoch = Callable[[int, dict[str, float]], None]

_STATE = "trainer.pt"


@dataclass(frozen=True)
class AlignmentTraining:
    """How an alignment is trained on Ray.

    Attributes
    ----------
    settings : AlignmentSettings
    name : str
        Equal for equal data and settings: by it a training that was killed finds its checkpoints.
    checkpoints : str
        Folder or URI that holds the checkpoints until the training is done.
    workers : int
    use_gpu : bool
        Whether each worker gets a GPU.
    checkpoint_every : int
        Epochs between two checkpoints.
    max_failures : int
        How often killed workers are started again.
    """

    settings: AlignmentSettings
    name: str
    checkpoints: str
    workers: int
    use_gpu: bool
    checkpoint_every: int
    max_failures: int

    def forget(self) -> None:
        """Delete the checkpoints of an earlier training, so that the next one starts from scratch."""
        system, root = filesystem(self.checkpoints)
        if system.get_file_info(root).type != pyarrow.fs.FileType.NotFound:
            system.delete_dir(root)

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
        system, root = filesystem(self.checkpoints)
        system.create_dir(root, recursive=True)
        with progress.task("epochs", total=self.settings.epochs) as task, ray_session.relay_progress(task) as queue:
            trainer = TorchTrainer(
                _train,
                train_loop_config={
                    "settings": self.settings,
                    "checkpoint_every": self.checkpoint_every,
                    "pairs": ray.put(pairs),
                    "run": (run.uri, run.run_id),
                    "progress": queue,
                    "on_epoch": on_epoch,
                },
                scaling_config=ScalingConfig(num_workers=self.workers, use_gpu=self.use_gpu),
                run_config=RunConfig(
                    name=self.name,
                    storage_path=root,
                    storage_filesystem=system,
                    checkpoint_config=CheckpointConfig(num_to_keep=1),
                    failure_config=FailureConfig(max_failures=self.max_failures),
                ),
            )
            try:
                result = trainer.fit()
            except TrainingFailedError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise LexrayError(
                    f"train alignment: its workers failed more than max_failures={self.max_failures} times, last with: "
                    f"{lines[-1].strip()}; run it again to go on from the last checkpoint"
                ) from error
        done = AlignmentTrainer(self.settings, pairs.train, pairs.val, pairs.n_bands)
        _restore(done, result.checkpoint)
        system.delete_dir(root)
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
        _report(trainer, metrics)


def _report(trainer: AlignmentTrainer, metrics: dict[str, float]) -> None:
    """Hand a checkpoint to Ray Train; a barrier for all workers."""
    if trainer.rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(trainer.state_dict(), Path(folder) / _STATE)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def _restore(trainer: AlignmentTrainer, checkpoint: Checkpoint) -> None:
    with checkpoint.as_directory() as folder:
        trainer.load_state_dict(torch.load(Path(folder) / _STATE, map_location=trainer.device, weights_only=True))
