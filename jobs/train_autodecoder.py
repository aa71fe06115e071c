"""`lexray train autodecoder`: fit an autodecoder to an events table on Ray Train.

Workers own parts: each reads its parts' photons as they are needed, holds their latents, and writes them to the
checkpoint as files a part, so that a restart on another number of workers finds them.
"""

import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar

import ray
import ray.train
import torch
from pydantic import AfterValidator, Field, model_validator
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Queue

from lexray.errors import LexrayError
from lexray.events import validate
from lexray.inference.autodecoder import MAX_CALIBRATION, Autodecoder
from lexray.models.autodecoders.learner import Precision, Schedule
from lexray.models.autodecoders.trainer import AutodecoderTrainer, TrainingDiverged
from lexray.runtime import ray_session, tracking
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.tables.files import require_local_path
from lexray.training import event_parts
from lexray.training.autodecoder_config import (
    MAX_VALIDATION,
    AutodecoderConfig,
    GridConfig,
    ModelType,
    ResnetConfig,
    SplitnetConfig,
)
from lexray.training.event_parts import EventsTable, TrainingPlan

_NETWORK, _RESULT = "network.pt", "result.pt"
#: Beside the checkpoints, where a training that diverged says so: Ray Train hands back what came with a checkpoint.
_DIVERGED = "diverged.txt"


class TrainAutodecoderConfig(JobConfig):
    """Configuration of `train autodecoder`."""

    out: Annotated[str, AfterValidator(require_local_path)] = Field(
        description="folder of the autodecoder, on a local disk"
    )
    events: str = Field(description="events table")
    former_keys: ClassVar = {"kind": "model_type"}

    model_type: ModelType = Field("splitnet", description="which autodecoder; the section of that name configures it")
    workers: int = Field(2, ge=1, description="training workers, each with one CPU")
    use_gpu: bool = Field(False, description="give each worker a GPU")
    checkpoint_every: float = Field(5, gt=0, description="epochs between two checkpoints, each with a validation")
    max_failures: int = Field(2, ge=0, description="restarts after a worker died, from the last checkpoint")
    seed: int = Field(Schedule.seed, ge=0, description="seed of weights, latents and batches")
    split_seed: int = Field(0, description="seed of the split into train, val and test")
    max_validation: int | None = Field(
        None,
        ge=0,
        description="detections to validate on, at most; by default as many as the model type can in little time",
    )
    patience: int | None = Field(
        None,
        ge=0,
        description="validations without a better gain before it ends; 0 trains to the end; by default the type's own",
    )
    precision: Precision = Field(Schedule.precision, description="of the network in training: float32 or bfloat16")
    compile: bool = Field(Schedule.compile, description="compile the network for training")
    splitnet: SplitnetConfig = SplitnetConfig()
    grid: GridConfig = GridConfig()
    resnet: ResnetConfig = ResnetConfig()

    @model_validator(mode="after")
    def _each_worker_has_a_stream(self) -> "TrainAutodecoderConfig":
        if self.workers > self.section.part_streams:
            raise ValueError(
                f"'{self.model_type}.part_streams' ({self.section.part_streams}) must be at least 'workers' "
                f"({self.workers})"
            )
        return self

    @property
    def section(self) -> AutodecoderConfig:
        """That of the model type."""
        section: AutodecoderConfig = getattr(self, self.model_type)
        return section

    @property
    def settings(self) -> Schedule:
        """What the library takes."""
        shared = self.model_dump(include={"seed", "patience", "precision", "compile"}, exclude_none=True)
        return self.section.settings(**shared)

    @property
    def validated_on(self) -> int:
        """Detections to validate on, at most."""
        return MAX_VALIDATION[self.model_type] if self.max_validation is None else self.max_validation


def run(config: TrainAutodecoderConfig, context: JobContext) -> JobResult:
    """Train, and write the autodecoder."""
    if config.force:  # a forced training starts from scratch, also after one that was killed
        shutil.rmtree(_checkpoints(config), ignore_errors=True)
    plan = event_parts.plan_training(config.events, config.split_seed, config.section.n_bands, config.validated_on)
    if plan.left_out:
        context.progress.warn(f"train autodecoder: {validate.describe_invalid_rows(plan.left_out)}")
    if not any(part.train for part in plan.parts.values()):
        raise LexrayError(f"{config.events}: no detection falls into the training split, there is nothing to fit")
    with (
        ray_session.session(config.ray),
        context.progress.task("epochs", total=config.section.epochs) as task,
        ray_session.relay_progress(task) as queue,
    ):
        result = _train(config, context.run, plan, queue)
    trained = Autodecoder(config.settings, result["network"], result["mean_latent"])
    most = MAX_CALIBRATION[config.model_type]
    if most:
        trained = trained.calibrated(event_parts.sample(plan, config.section.n_bands, most))
    trained.save(config.out)
    shutil.rmtree(_checkpoints(config), ignore_errors=True)
    return JobResult(counts={**result["counts"], "left_out": len(plan.left_out)}, metrics=result["metrics"])


def _checkpoints(config: TrainAutodecoderConfig) -> Path:
    return Path(f"{config.out}.checkpoints").resolve()


def _train(config: TrainAutodecoderConfig, run: tracking.MlflowRun, plan: TrainingPlan, queue: Queue) -> dict[str, Any]:
    """What the first worker wrote when all was done."""
    # A driver that starts again with what decides the result goes on from the last checkpoint; a changed one must not.
    made_of = [delta.version(config.events), config.model_type, asdict(config.settings), config.split_seed]
    trainer = TorchTrainer(
        worker,
        train_loop_config={
            "config": config.model_dump(),
            "plan": [ray.put(plan)],
            "queue": queue,
            "mlflow": (run.uri, run.run_id),
        },
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": 1, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=delta.digest([*made_of, config.validated_on]),
            storage_path=str(_checkpoints(config)),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    diverged = _checkpoints(config) / _DIVERGED
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
    return result


def train_worker(loop: dict[str, Any]) -> None:
    """What each training worker does, from its first step or the last checkpoint's."""
    config = TrainAutodecoderConfig(**loop["config"])
    rank, n_workers = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    plan: TrainingPlan = ray.get(loop["plan"][0])
    settings = config.settings
    mine = {number: part for number, part in plan.parts.items() if number % settings.part_streams % n_workers == rank}
    source = EventsTable(mine, config.section.n_bands)
    trainer = AutodecoderTrainer(settings, source, get_device())
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            _restore(trainer, Path(folder))
    run = tracking.reopen(*loop["mlflow"])
    queue: Queue = loop["queue"]
    every = max(1, round(config.checkpoint_every * trainer.steps_per_epoch))
    shown, began, step = trainer.epoch if rank == 0 else 0, time.monotonic(), trainer.step
    while not trainer.finished:
        try:
            trainer.run_step()
        except TrainingDiverged as error:  # no failure: started again, it would end the same way
            if rank == 0:
                (_checkpoints(config) / _DIVERGED).write_text(str(error))
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
        emptied = trainer.sum_over_workers(torch.tensor([float(len(source.emptied))]))
        counts = {"detections": trainer.n_detections, "photons": trainer.n_photons, "epochs": trainer.epoch}
        counts |= {"skipped_steps": trainer.skipped_steps, "emptied": int(emptied)}
        kept = trainer.result()
        final = {"final_loss": metrics["loss"], "final_val_gain": kept.get("gain", metrics["val_gain"])}
        result = {**kept, "counts": counts, "metrics": final}
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            torch.save(trainer.state(), Path(folder) / _NETWORK)
            if result:
                torch.save(result, Path(folder) / _RESULT)
        for number, latents in trainer.latent_states().items():
            torch.save(latents, Path(folder) / _latents_file(number))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _restore(trainer: AutodecoderTrainer, folder: Path) -> None:
    def load(name: str) -> Any:
        return torch.load(folder / name, weights_only=True, map_location="cpu")

    trainer.load_state(load(_NETWORK), lambda part: load(_latents_file(part)))


def _latents_file(part: int) -> str:
    return f"latents-{part:05d}.pt"


JOB = Job(
    name="train autodecoder",
    config=TrainAutodecoderConfig,
    run=run,
    inputs=("events",),
    positional=("events",),
    summary="Fit an autodecoder to an events table.",
)
