"""`lexray train alignment`: latents and text vectors of the same sources → two towers into one space."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.fs
import ray
import torch
from pydantic import Field, model_validator
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer, get_device

from lexray.errors import LexrayError
from lexray.models.alignment.trainer import AlignmentSettings, AlignmentTrainer
from lexray.runtime import ray_session, tracking
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.tables.files import filesystem
from lexray.training.pairs import PairedTables, read_pairs

#: Called on the first worker after each epoch with the epoch's number, from 1, and its metrics.
OnEpoch = Callable[[int, dict[str, float]], None]

_STATE = "trainer.pt"


class TrainAlignmentConfig(JobConfig):
    """What `lexray train alignment` takes."""

    former_keys: ClassVar = {"batch": "batch_size"}

    latents: str = Field(description="latents table")
    text_embeddings: str = Field(description="text_embeddings table")
    events: str = Field(description="events table, for the sources' positions, which decide the split")
    split_seed: int = Field(0, description="another seed is another split; keep it the same in every job")

    dimension: int = Field(AlignmentSettings.dimension, ge=2, description="numbers of a vector in the shared space")
    hidden: int = Field(AlignmentSettings.hidden, ge=1, description="hidden units of a tower's member")
    members: int = Field(AlignmentSettings.members, ge=1, description="independent members a tower averages over")
    text_components: int = Field(
        AlignmentSettings.text_components, ge=1, description="principal components of the text vectors"
    )
    whitening_shrinkage: float = Field(
        AlignmentSettings.whitening_shrinkage,
        ge=0,
        description="how far faint components are kept faint; 0 whitens fully",
    )
    input_dropout: float = Field(
        AlignmentSettings.input_dropout, ge=0, lt=1, description="share of the features set to 0"
    )
    dropout: float = Field(AlignmentSettings.dropout, ge=0, lt=1, description="share of the hidden units set to 0")
    noise: float = Field(AlignmentSettings.noise, ge=0, description="noise on features, in their standard deviations")
    temperature: float = Field(
        AlignmentSettings.temperature, ge=0.01, description="where the learned temperature starts"
    )
    learning_rate: float = Field(AlignmentSettings.learning_rate, gt=0, description="of AdamW")
    weight_decay: float = Field(AlignmentSettings.weight_decay, ge=0, description="of AdamW")
    batch_size: int = Field(
        AlignmentSettings.batch_size, ge=2, description="largest number of sources a step, over all workers"
    )
    epochs: int = Field(AlignmentSettings.epochs, ge=1, description="at most so many")
    patience: int = Field(
        AlignmentSettings.patience, ge=1, description="epochs without a better validation loss before it ends"
    )
    seed: int = Field(AlignmentSettings.seed, ge=0, description="of weights, batches and noise")

    workers: int = Field(1, ge=1, description="processes that train together")
    use_gpu: bool = Field(False, description="give each worker a GPU")
    checkpoint_every: int = Field(20, ge=1, description="epochs between two checkpoints")
    max_failures: int = Field(3, ge=0, description="how often killed workers are started again from the checkpoint")

    @model_validator(mode="after")
    def _members_fit(self) -> "TrainAlignmentConfig":
        if self.dimension % self.members:
            raise ValueError(f"'dimension' ({self.dimension}) must be a multiple of 'members' ({self.members})")
        return self

    @property
    def settings(self) -> AlignmentSettings:
        """The keys that are the training's own."""
        return AlignmentSettings(**self.model_dump(include={field.name for field in fields(AlignmentSettings)}))


def run(config: TrainAlignmentConfig, context: JobContext) -> JobResult:
    """Read the pairs, train on Ray, write the towers of the best epoch."""
    pairs = read_pairs(config.latents, config.text_embeddings, config.events, config.split_seed)
    if pairs.n_unusable:
        context.progress.warn(f"left out {pairs.n_unusable} detections or texts with missing or non-finite numbers")
    with ray_session.session(config.ray):
        trainer = fit(config, pairs, context)
    _write(config, pairs, trainer)
    best = trainer.history[trainer.best_epoch - 1]
    context.run.dictionary({"made_with": pairs.made_with, "settings": asdict(config.settings)}, "alignment.json")
    return JobResult(
        counts={
            "training sources": len(pairs.train),
            "training detections": len(pairs.train.xray),
            "validation sources": len(pairs.val),
            "epochs": trainer.epoch,
            "best epoch": trainer.best_epoch,
        },
        metrics={f"best/{name}": value for name, value in best.items()}
        | {"chance/val/recall@10": min(1.0, 10 / len(pairs.val))},
    )


def fit(
    config: TrainAlignmentConfig, pairs: PairedTables, context: JobContext, on_epoch: OnEpoch | None = None
) -> AlignmentTrainer:
    """Train on Ray workers, and return the trainer as the last checkpoint left it.

    Checkpoints lie in OUT.checkpoints until the training is done, under a name that its data and settings give: a
    driver that was killed goes on from them where it is started again with the same.

    Parameters
    ----------
    config : Config
        The job's.
    pairs : PairedTables
        As `read_pairs` gives them.
    context : Context
        Where metrics and progress go.
    on_epoch : callable, optional
        A hook into the first worker.

    Raises
    ------
    LexrayError
        If workers failed more often than `max_failures`.
    """
    system, root = filesystem(config.out)
    checkpoints = f"{root}.checkpoints"
    if config.force and system.get_file_info(checkpoints).type != pyarrow.fs.FileType.NotFound:
        system.delete_dir(checkpoints)
    system.create_dir(checkpoints, recursive=True)
    with context.progress.task("epochs", total=config.epochs) as task, ray_session.relay_progress(task) as queue:
        trainer = TorchTrainer(
            _train,
            train_loop_config={
                "config": config,
                "pairs": ray.put(pairs),
                "run": (context.run.uri, context.run.run_id),
                "progress": queue,
                "on_epoch": on_epoch,
            },
            scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=config.use_gpu),
            run_config=RunConfig(
                name=_name(config),
                storage_path=checkpoints,
                storage_filesystem=system,
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                failure_config=FailureConfig(max_failures=config.max_failures),
            ),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise LexrayError(
                f"train alignment: its workers failed more than max_failures={config.max_failures} times, last with: "
                f"{lines[-1].strip()}; run it again to go on from the last checkpoint"
            ) from error
    done = AlignmentTrainer(config.settings, pairs.train, pairs.val, pairs.n_bands)
    _restore(done, result.checkpoint)
    system.delete_dir(checkpoints)
    return done


def _train(loop: dict[str, Any]) -> None:
    """What each worker does."""
    config: TrainAlignmentConfig = loop["config"]
    pairs: PairedTables = ray.get(loop["pairs"])
    trainer = AlignmentTrainer(config.settings, pairs.train, pairs.val, pairs.n_bands, get_device())
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
        if trainer.epoch % config.checkpoint_every and not trainer.finished:
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


def _write(config: TrainAlignmentConfig, pairs: PairedTables, trainer: AlignmentTrainer) -> None:
    system, root = filesystem(config.out)
    with tempfile.TemporaryDirectory() as folder:
        trainer.best_towers().save(folder, pairs.made_with)
        system.create_dir(root, recursive=True)
        pyarrow.fs.copy_files(folder, root, destination_filesystem=system)


def _name(config: TrainAlignmentConfig) -> str:
    """Name of a training: equal for equal data and settings."""
    inputs = {path: delta.version(path) for path in (config.latents, config.text_embeddings, config.events)}
    return delta.digest({"settings": asdict(config.settings), "split_seed": config.split_seed, "inputs": inputs})


JOB = Job(
    name="train alignment",
    config=TrainAlignmentConfig,
    run=run,
    inputs=("latents", "text_embeddings", "events"),
    positional=("latents", "text_embeddings", "events"),
    summary="Fit the two towers that bring latents and text into one space.",
)
