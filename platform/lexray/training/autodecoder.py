"""Training of an autodecoder on Ray Train.

Workers own parts: each reads its parts' photons as they are needed, holds their latents, and writes them to the
checkpoint as files a part, so that a restart on another number of workers finds them.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import ray.train
from ray.train.torch import get_device
from ray.util.queue import Queue

from lexray.errors import LexrayError
from lexray.inference.autodecoder import load_autodecoder
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.sampler import PartSource
from lexray.models.autodecoders.state import TrainingDiverged
from lexray.models.autodecoders.trainer import AutodecoderTrainer
from lexray.runtime import ray_session, tracking
from lexray.runtime.progress import Progress
from lexray.training.ray_train import RayTraining, read_checkpoint, report

_NETWORK, _RESULT, _EMPTIED = "network.pt", "result.pt", "emptied"
#: In the checkpoints' folder, where a training that diverged says so: Ray Train hands back what came with a checkpoint.
_DIVERGED = "diverged.txt"


class SourceOfWorker(PartSource, Protocol):
    """Detections of one worker; `emptied` as of `EventsTable`."""

    emptied: dict[str, str]


class PartsOfWorkers(Protocol):
    """What is trained on, by worker."""

    def of_worker(self, rank: int, n_workers: int, settings: Schedule) -> SourceOfWorker:
        """Whole streams of parts for one of the workers."""


@dataclass(frozen=True)
class AutodecoderTraining(RayTraining):
    """How an autodecoder is trained on Ray; its checkpoints are on a disk that all workers share.

    Attributes
    ----------
    settings : Schedule
        Of the model type that is trained.
    checkpoint_every : float
        Epochs between two checkpoints, each with a validation.
    init : str or None
        Folder of the autodecoder, of the same sizes, whose network the training begins with.
    """

    command: ClassVar = "train autodecoder"

    settings: Schedule
    checkpoint_every: float
    init: str | None = None

    def fit(self, plan: PartsOfWorkers, run: tracking.MlflowRun, progress: Progress) -> dict[str, Any]:
        """Train on Ray workers, from the last checkpoint where there is one.

        Parameters
        ----------
        plan : PartsOfWorkers
            A `TrainingPlan`, say.
        run : MlflowRun
            Where metrics go.
        progress : Progress

        Returns
        -------
        dict
            What the workers wrote when all was done: 'network', 'mean_latent', 'counts', 'metrics', and 'emptied', as
            of `EventsTable`.

        Raises
        ------
        LexrayError
            If workers failed more often than `max_failures`, or the training diverged.
        """
        diverged = Path(self.checkpoints) / _DIVERGED
        diverged.unlink(missing_ok=True)
        with progress.task("epochs", total=self.settings.epochs) as task, ray_session.relay_progress(task) as queue:
            loop = {"training": self, "plan": ray.put(plan), "queue": queue, "mlflow": (run.uri, run.run_id)}
            last = self.run_workers(worker, loop, progress)
        if diverged.exists():
            raise LexrayError(f"{self.command}: {diverged.read_text()}; lower the learning rate or leave these out")
        with last.as_directory() as folder:
            result: dict[str, Any] = read_checkpoint(folder, _RESULT)
            of_workers = [read_checkpoint(folder, path.name) for path in sorted(Path(folder).glob(f"{_EMPTIED}-*.pt"))]
        result["emptied"] = {name: why for emptied in of_workers for name, why in emptied.items()}
        result["counts"]["emptied"] = len(result["emptied"])
        return result


def train_worker(loop: dict[str, Any]) -> None:
    """What each training worker does, from its first step or the last checkpoint's."""
    training: AutodecoderTraining = loop["training"]
    rank, n_workers = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    plan: PartsOfWorkers = ray.get(loop["plan"])
    settings = training.settings
    source = plan.of_worker(rank, n_workers, settings)
    initial = None if training.init is None else load_autodecoder(training.init).network.state_dict()
    trainer = AutodecoderTrainer(settings, source, get_device(), initial)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.load_state(
                read_checkpoint(folder, _NETWORK), lambda part: read_checkpoint(folder, _latents_file(part))
            )
            for path in Path(folder).glob(f"{_EMPTIED}-*.pt"):  # a worker may own other parts now
                source.emptied |= read_checkpoint(folder, path.name)
    run = tracking.reopen(*loop["mlflow"])
    queue: Queue = loop["queue"]
    every = max(1, round(training.checkpoint_every * trainer.steps_per_epoch))
    shown, began, step = trainer.epoch if rank == 0 else 0, time.monotonic(), trainer.step
    while not trainer.finished:
        try:
            trainer.run_step()
        except TrainingDiverged as error:  # no failure: started again, it would end the same way
            if rank == 0:
                (Path(training.checkpoints) / _DIVERGED).write_text(str(error))
            return
        if trainer.step % every and trainer.step < trainer.total_steps:
            continue
        speed = (trainer.step - step) / trainer.steps_per_epoch * trainer.n_detections / (time.monotonic() - began)
        loss, gain = trainer.loss, trainer.evaluate()
        metrics = {
            "loss": loss,
            "val_gain": gain,
            "skipped_steps": trainer.progress.skipped_steps,
            "sources_per_s": speed,
        }
        if rank == 0:
            run.metrics({**metrics, "epoch": trainer.step / trainer.steps_per_epoch}, trainer.step)
            queue.put((trainer.epoch - shown, f"loss {loss:.3f} nat/photon, held-out gain {gain:.3f} bits/photon"))
            shown = trainer.epoch
        _report(trainer, rank, metrics, source)
        began, step = time.monotonic(), trainer.step


#: What Ray Train runs; a test puts one in its place that dies.
worker = train_worker


def _report(trainer: AutodecoderTrainer, rank: int, metrics: dict[str, float], source: SourceOfWorker) -> None:
    """Hand a checkpoint to Ray Train: the network from the first worker, latents from the part's owner."""
    result: dict[str, Any] = {}
    if trainer.finished:
        kept = trainer.result()
        result = {
            **kept,
            "counts": {
                "detections": trainer.n_detections,
                "photons": trainer.n_photons,
                "epochs": trainer.epoch,
                "skipped_steps": trainer.progress.skipped_steps,
            },
            "metrics": {"final_loss": metrics["loss"], "final_val_gain": kept.get("gain", metrics["val_gain"])},
        }
    files: dict[str, Any] = {
        **{_latents_file(part): latents for part, latents in trainer.latent_states().items()},
        f"{_EMPTIED}-{rank:05d}.pt": dict(source.emptied),  # others of its parts are being read
    }
    if rank == 0:
        files |= {_NETWORK: trainer.state()} | ({_RESULT: result} if result else {})
    report(metrics, files)


def _latents_file(part: int) -> str:
    return f"latents-{part:05d}.pt"
