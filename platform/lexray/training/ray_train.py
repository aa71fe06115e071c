"""A training on Ray Train: its workers, their checkpoints, and going on after either was killed."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.fs
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from lexray.errors import LexrayError, last_line
from lexray.runtime.progress import Progress
from lexray.tables.files import filesystem

#: What checkpoints hold changes from version to version: those of another form are not continued.
_CHECKPOINT_FORM = 2


@dataclass(frozen=True)
class RayTraining:
    """How a model is trained on Ray.

    Attributes
    ----------
    name : str
        Equal for equal data and settings: by it a training that was killed finds its checkpoints.
    checkpoints : str
        Folder or URI that holds the checkpoints until the training is done.
    workers : int
    use_gpu : bool
        Whether each worker gets a GPU.
    max_failures : int
        How often killed workers are started again.
    """

    #: The command, for messages.
    command: ClassVar[str]

    name: str
    checkpoints: str
    workers: int
    use_gpu: bool
    max_failures: int

    def forget(self) -> None:
        """Delete the checkpoints, so that the next training starts from scratch."""
        system, root = filesystem(self.checkpoints)
        with contextlib.suppress(FileNotFoundError):  # a worker may still tidy up its own
            if system.get_file_info(root).type != pyarrow.fs.FileType.NotFound:
                system.delete_dir(root)

    @property
    def _folder(self) -> str:
        return f"{self.name}-{_CHECKPOINT_FORM}"

    def _warn_of_others(self, progress: Progress) -> None:
        """Say in one line where there are checkpoints that this training does not continue, and none of its own."""
        system, root = filesystem(self.checkpoints)
        found = system.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True))
        folders = {one.base_name for one in found if one.type == pyarrow.fs.FileType.Directory}
        if folders and self._folder not in folders:
            progress.warn(
                f"{self.command}: {self.checkpoints} holds checkpoints of other data, of another configuration or of "
                "another version; they are not continued, the training starts from the beginning"
            )

    def run_workers(
        self, work: Callable[[dict[str, Any]], None], loop: dict[str, Any], progress: Progress
    ) -> Checkpoint:
        """Run `work` with `loop` on each worker, from the last checkpoint where there is one.

        Returns
        -------
        Checkpoint
            The last one.

        Raises
        ------
        LexrayError
            If workers failed more often than `max_failures`.
        """
        self._warn_of_others(progress)
        system, root = filesystem(self.checkpoints)
        system.create_dir(root, recursive=True)
        trainer = TorchTrainer(
            work,
            train_loop_config=loop,
            scaling_config=ScalingConfig(
                num_workers=self.workers,
                use_gpu=self.use_gpu,
                resources_per_worker={"CPU": 1, **({"GPU": 1} if self.use_gpu else {})},
            ),
            run_config=RunConfig(
                name=self._folder,
                storage_path=root,
                storage_filesystem=system,
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                failure_config=FailureConfig(max_failures=self.max_failures),
            ),
        )
        try:
            last: Checkpoint = trainer.fit().checkpoint
        except ray.train.TrainingFailedError as error:
            raise LexrayError(
                f"{self.command}: its workers failed more than max_failures={self.max_failures} times, last with: "
                f"{last_line(str(error))}; run it again to go on from the last checkpoint"
            ) from error
        return last


def report(metrics: Mapping[str, float], files: Mapping[str, Any]) -> None:
    """Hand metrics and a checkpoint to Ray Train; a barrier for all workers.

    Parameters
    ----------
    metrics : mapping
    files : mapping
        What the checkpoint holds of this worker: tensors and plain values by the file's name.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, value in files.items():
            torch.save(value, Path(folder) / name)
        ray.train.report(dict(metrics), checkpoint=Checkpoint.from_directory(folder) if files else None)


def read_checkpoint(folder: str, name: str) -> Any:
    """A file of a checkpoint, its tensors on the CPU."""
    return torch.load(Path(folder) / name, weights_only=True, map_location="cpu")
