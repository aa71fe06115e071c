"""`lexray train autodecoder`: fit the autodecoder to an events table on Ray Train.

Workers own parts: each reads its parts' photons, holds their latents, and writes them to the checkpoint as files a
part, so that a restart on another number of workers finds them.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute
import ray
import ray.train
import torch
from pydantic import AfterValidator, Field
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from lexray import cluster, splits, storage, tracking
from lexray.autodecoding import PHOTON_COLUMNS, Autodecoder, photons_of_table
from lexray.config import Config as BaseConfig
from lexray.config import JobConfig, local_path
from lexray.errors import LexrayError
from lexray.job import Context, Job, Outcome
from lexray.models.autodecoder import Penalties
from lexray.models.photons import Photons
from lexray.models.trainer import Settings, Trainer

#: Keys that change the result: a checkpoint of others must not be resumed.
_FITTED_KEYS = {*Settings.__dataclass_fields__, "split_seed"}
_COLUMNS = ("source_id", "detection_id", *PHOTON_COLUMNS, "part")


class PenaltyConfig(BaseConfig):
    """Weights beside the log-likelihood in nats."""

    tv_mean: float = Field(1.5, ge=0, description="total variation of the log-rate's mean over the bands")
    tv_deviation: float = Field(4.0, ge=0, description="total variation of each band's deviation from that mean")
    latent: float = Field(0.02, ge=0, description="squared norm of the latent")


class Config(JobConfig):
    """Configuration of `train autodecoder`."""

    out: Annotated[str, AfterValidator(local_path)] = Field(description="folder of the autodecoder, on a local disk")
    events: str = Field(description="events table")
    workers: int = Field(2, ge=1, description="training workers, each with one CPU")
    latent_dim: int = Field(64, ge=1, description="numbers in a latent")
    n_bands: int = Field(3, ge=1, description="energy bands of every detection")
    n_knots: int = Field(256, ge=4, description="knots of the rate in time; a power of two")
    width: int = Field(256, ge=1, description="hidden units of the decoder")
    epochs: int = Field(120, ge=1, description="passes over the training's detections")
    batch: int = Field(128, ge=1, description="detections a step, over all workers")
    learning_rate: float = Field(3e-3, gt=0, description="decoder's highest learning rate")
    latent_learning_rate: float = Field(5e-2, gt=0, description="latents' highest learning rate")
    penalties: PenaltyConfig = PenaltyConfig()
    fit_steps: int = Field(200, ge=1, description="optimiser steps for the latent of a new detection")
    checkpoint_every: int = Field(20, ge=1, description="epochs between two checkpoints, each with a validation")
    max_failures: int = Field(2, ge=0, description="restarts after a worker died, from the last checkpoint")
    seed: int = Field(0, ge=0, description="seed of weights, latents and batches")
    split_seed: int = Field(0, description="seed of the split into train, val and test")

    def settings(self) -> Settings:
        """What the library takes."""
        own = self.model_dump(include=set(Settings.__dataclass_fields__) - {"penalties"})
        return Settings(**own, penalties=Penalties(**self.penalties.model_dump()))


def run(config: Config, context: Context) -> Outcome:
    """Train, and write the autodecoder."""
    if config.force:  # a forced training begins anew, also after one that was killed
        shutil.rmtree(_checkpoints(config), ignore_errors=True)
    with cluster.session(config.ray):
        assignment = splits.read_splits(config.events, config.split_seed)
        if "train" not in assignment.values():
            raise LexrayError(f"{config.events}: no detection falls into the training split, there is nothing to fit")
        with context.progress.task("epochs", total=config.epochs) as task, cluster.relay(task) as queue:
            result = _train(config, context.run, ray.put(assignment), queue)
        with tempfile.TemporaryDirectory() as folder:
            state = torch.load(
                Path(result.checkpoint.to_directory(folder)) / "network.pt", weights_only=True, map_location="cpu"
            )
    decoder = config.settings().decoder()
    decoder.load_state_dict(state["decoder"])
    Autodecoder(decoder, state["mean_latent"], config.settings()).save(config.out)
    shutil.rmtree(_checkpoints(config), ignore_errors=True)
    metrics = {f"final_{name}": float(result.metrics[name]) for name in ("loss", "val_gain")}
    counts = {name: int(result.metrics[name]) for name in ("detections", "photons", "skipped_steps")}
    return Outcome(counts={**counts, "epochs": config.epochs}, metrics=metrics)


def _checkpoints(config: Config) -> Path:
    return Path(f"{config.out}.checkpoints").resolve()


def _train(config: Config, run: tracking.Run, assignment: ray.ObjectRef, queue: Queue) -> ray.train.Result:
    trainer = TorchTrainer(
        worker,
        train_loop_config={
            "config": config.model_dump(),
            "assignment": [assignment],
            "queue": queue,
            "mlflow": (run.uri, run.run_id),
        },
        torch_config=ray.train.torch.TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=config.workers, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(
            # A driver that starts again with the same configuration goes on from the last checkpoint; a changed one
            # must not.
            name=storage.digest([storage.version(config.events), config.model_dump(mode="json", include=_FITTED_KEYS)]),
            storage_path=str(_checkpoints(config)),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        cause = str(error).strip().splitlines()
        raise LexrayError(f"train autodecoder: {cause[-1] if cause else error}") from error


def train_worker(loop: dict[str, Any]) -> None:
    """What each training worker does, from its first epoch or the last checkpoint's."""
    config = Config(**loop["config"])
    rank, n_workers = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    assignment: dict[str, str] = ray.get(loop["assignment"][0])
    mine = list(storage.part_files(config.events))[rank::n_workers]
    rows = storage.read(config.events, _COLUMNS, parts=mine, order="detection_id")
    trainer = Trainer(config.settings(), _by_part(_in_split(rows, assignment, "train"), config.n_bands))
    validation = photons_of_table(_in_split(rows, assignment, "val"), config.n_bands)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            _restore(trainer, Path(folder))
    run = tracking.reopen(*loop["mlflow"])
    queue: Queue = loop["queue"]
    shown = trainer.epoch if rank == 0 else 0
    while trainer.epoch < config.epochs:
        loss = trainer.run_epoch()
        due = trainer.epoch % config.checkpoint_every == 0 or trainer.epoch == config.epochs
        if not due:
            continue
        gain = trainer.held_out_gain(validation)
        if rank == 0:
            run.metrics({"loss": loss, "val_gain": gain, "skipped_steps": trainer.skipped_steps}, trainer.epoch)
            queue.put((trainer.epoch - shown, f"loss {loss:.3f} nat/photon, held-out gain {gain:.3f} bits/photon"))
            shown = trainer.epoch
        _report(trainer, rank, {"loss": loss, "val_gain": gain})


#: What Ray Train runs; a test puts one in its place that dies.
worker = train_worker


def _in_split(rows: pa.Table, assignment: Mapping[str, str], wanted: str) -> pa.Table:
    chosen = [assignment[source] == wanted for source in rows["source_id"].to_pylist()]
    return rows.filter(pa.array(chosen, pa.bool_()))


def _by_part(rows: pa.Table, n_bands: int) -> dict[int, Photons]:
    parts = sorted(set(rows["part"].to_pylist()))
    return {p: photons_of_table(rows.filter(pa.compute.equal(rows["part"], p)), n_bands) for p in parts}


def _report(trainer: Trainer, rank: int, metrics: dict[str, float]) -> None:
    """Hand a checkpoint to Ray Train: the network from the first worker, latents from the part's owner."""
    mean_latent = trainer.mean_latent()
    counts = {"detections": trainer.n_detections, "photons": trainer.n_photons, "skipped_steps": trainer.skipped_steps}
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            torch.save({**trainer.network_state(), "mean_latent": mean_latent}, Path(folder) / "network.pt")
        for number, part in trainer.parts.items():
            torch.save(part.latents.state(), Path(folder) / f"latents-{number:05d}.pt")
        ray.train.report({**metrics, **counts}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _restore(trainer: Trainer, folder: Path) -> None:
    trainer.load_network_state(torch.load(folder / "network.pt", weights_only=True))
    for number, part in trainer.parts.items():
        part.latents.load_state(torch.load(folder / f"latents-{number:05d}.pt", weights_only=True))


JOB = Job(
    name="train autodecoder",
    config=Config,
    run=run,
    inputs=("events",),
    positional=("events",),
    summary="Fit the autodecoder to an events table.",
)
