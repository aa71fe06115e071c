"""Training of an autodecoder on Ray Train.

Workers own parts: each reads its parts' photons as they are needed, holds their latents, and writes them to the
checkpoint as files a part, so that a restart on another number of workers finds them.
"""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Queue

from lexray.errors import LexrayError
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.trainer import AutodecoderTrainer, TrainingDiverged
from lexray.runtime import ray_session, tracking
from lexray.runtime.progress import Progress
from lexray.training.event_parts import EventsTable, TrainingPlan

_NETWORK, _RESULT, _EMPTIED = "network.pt", "result.pt", "emptied"
#: In the checkpoints' folder, where a training that diverged says so: Ray Train hands back what came with a checkpoint.
_DIVERGED = "diverged.txt"


@dataclass(frozen=True)
class AutodecoderTraining:
    """How an autodecoder is trained on Ray.

    Attributes
    ----------
    settings : Schedule
        Of the model type that is trained.
    name : str
        Equal for equal data and settings: by it a training that was killed finds its checkpoints.
    checkpoints : str
        Absolute path of the folder that holds the checkpoints until the training is done.
    workers : int
    use_gpu : bool
        Whether each worker gets a GPU.
    checkpoint_every : float
        Epochs between two checkpoints, each with a validation.
    max_failures : int
        How often killed workers are started again.
    """

    settings: Schedule
    name: str
    checkpoints: str
    workers: int
    use_gpu: bool
    checkpoint_every: float
    max_failures: int

    def forget(self) -> None:
        """Delete the checkpoints, so that the next training starts from scratch."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def fit(self, plan: TrainingPlan, run: tracking.MlflowRun, progress: Progress) -> dict[str, Any]:
        """Train on Ray workers, from the last checkpoint where there is one.

        Parameters
        ----------
        plan : TrainingPlan
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
        with progress.task("epochs", total=self.settings.epochs) as task, ray_session.relay_progress(task) as queue:
            trainer = TorchTrainer(
                worker,
                train_loop_config={
                    "training": self,
                    "plan": [ray.put(plan)],
                    "queue": queue,
                    "mlflow": (run.uri, run.run_id),
                },
                torch_config=ray.train.torch.TorchConfig(backend="nccl" if self.use_gpu else "gloo"),
                scaling_config=ray.train.ScalingConfig(
                    num_workers=self.workers,
                    use_gpu=self.use_gpu,
                    resources_per_worker={"CPU": 1, **({"GPU": 1} if self.use_gpu else {})},
                ),
                run_config=ray.train.RunConfig(
                    name=self.name,
                    storage_path=self.checkpoints,
                    failure_config=ray.train.FailureConfig(max_failures=self.max_failures),
                    checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                ),
            )
            diverged = Path(self.checkpoints) / _DIVERGED
            diverged.unlink(missing_ok=True)
            try:
                done = trainer.fit()
            except ray.train.TrainingFailedError as error:
                cause = str(error).strip().splitlines()
                raise LexrayError(f"train autodecoder: {cause[-1] if cause else error}") from error
        if diverged.exists():
            raise LexrayError(f"train autodecoder: {diverged.read_text()}; lower the learning rate or leave these out")
        with done.checkpoint.as_directory() as folder:
            result: dict[str, Any] = torch.load(Path(folder) / _RESULT, weights_only=True)
            of_workers = [json.loads(path.read_text()) for path in sorted(Path(folder).glob(f"{_EMPTIED}-*.json"))]
        result["emptied"] = {name: why for emptied in of_workers for name, why in emptied.items()}
        result["counts"]["emptied"] = len(result["emptied"])
        return result


def train_worker(loop: dict[str, Any]) -> None:
    """What each training worker does, from its first step or the last checkpoint's."""
    training: AutodecoderTraining = loop["training"]
    rank, n_workers = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    plan: TrainingPlan = ray.get(loop["plan"][0])
    settings = training.settings
    mine = {number: part for number, part in plan.parts.items() if number % settings.part_streams % n_workers == rank}
    source = EventsTable(mine, settings.n_bands)
    trainer = AutodecoderTrainer(settings, source, get_device())
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            _restore(trainer, Path(folder))
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
        metrics = {"loss": loss, "val_gain": gain, "skipped_steps": trainer.skipped_steps, "sources_per_s": speed}
        if rank == 0:
            run.metrics({**metrics, "epoch": trainer.step / trainer.steps_per_epoch}, trainer.step)
            queue.put((trainer.epoch - shown, f"loss {loss:.3f} nat/photon, held-out gain {gain:.3f} bits/photon"))
            shown = trainer.epoch
        _report(trainer, rank, metrics, source)
        began, step = time.monotonic(), trainer.step


#: What Ray Train runs; a test puts one in its place that dies.
worker = train_worker


def _report(trainer: AutodecoderTrainer, rank: int, metrics: dict[str, float], source: EventsTable) -> None:
    """Hand a checkpoint to Ray Train: the network from the first worker, latents from the part's owner."""
    result: dict[str, Any] = {}
    if trainer.finished:
        counts = {"detections": trainer.n_detections, "photons": trainer.n_photons, "epochs": trainer.epoch}
        counts |= {"skipped_steps": trainer.skipped_steps}
        kept = trainer.result()
        final = {"final_loss": metrics["loss"], "final_val_gain": kept.get("gain", metrics["val_gain"])}
        result = {**kept, "counts": counts, "metrics": final}
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            torch.save(trainer.state(), Path(folder) / _NETWORK)
            if result:
                torch.save(result, Path(folder) / _RESULT)
        (Path(folder) / f"{_EMPTIED}-{rank:05d}.json").write_text(json.dumps(source.emptied))
        for number, latents in trainer.latent_states().items():
            torch.save(latents, Path(folder) / _latents_file(number))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _restore(trainer: AutodecoderTrainer, folder: Path) -> None:
    def load(name: str) -> Any:
        return torch.load(folder / name, weights_only=True, map_location="cpu")

    trainer.load_state(load(_NETWORK), lambda part: load(_latents_file(part)))


def _latents_file(part: int) -> str:
    return f"latents-{part:05d}.pt"
