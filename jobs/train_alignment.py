"""`lexray train alignment`: train two towers that bring a source's latents and text vectors into one space."""

from dataclasses import asdict, fields
from typing import ClassVar

from pydantic import Field, model_validator

from lexray.models.alignment.trainer import AlignmentSettings
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.training.alignment import AlignmentTraining, save_towers
from lexray.training.pairs import read_pairs
from lexray.training.settings_keys import keys_of


class AlignmentTables(JobConfig):
    """Tables of `lexray train alignment`, and how their sources are split."""

    latents: str = Field(description="latents table")
    text_embeddings: str = Field(description="text_embeddings table")
    events: str = Field(description="events table, for the sources' positions, which decide the split")
    split_seed: int = Field(0, description="another seed is another split; keep it the same in every job")


class TrainAlignmentConfig(keys_of(AlignmentSettings, AlignmentTables)):  # type: ignore[misc]
    """Configuration of `lexray train alignment`."""

    former_keys: ClassVar = {"batch": "batch_size"}

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
        """The settings of the training itself."""
        return AlignmentSettings(**self.model_dump(include={field.name for field in fields(AlignmentSettings)}))

    @property
    def training(self) -> AlignmentTraining:
        """The training on Ray; its name is the same for the same data and settings."""
        versions = {path: delta.version(path) for path in (self.latents, self.text_embeddings, self.events)}
        return AlignmentTraining(
            settings=self.settings,
            name=delta.digest({"settings": asdict(self.settings), "split_seed": self.split_seed, "inputs": versions}),
            checkpoints=f"{self.out.rstrip('/')}.checkpoints",
            workers=self.workers,
            use_gpu=self.use_gpu,
            checkpoint_every=self.checkpoint_every,
            max_failures=self.max_failures,
        )


def run(config: TrainAlignmentConfig, context: JobContext) -> JobResult:
    """Read the pairs, train on Ray, write the towers of the best epoch."""
    pairs = read_pairs(config.latents, config.text_embeddings, config.events, config.split_seed)
    training = config.training
    if config.force:
        training.forget()
    with ray_session.session(config.ray):
        trainer = training.fit(pairs, context.run, context.progress)
    save_towers(config.out, trainer, pairs.made_with)
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
        refusals=pairs.refusals,
        accepted=pairs.n_rows - len(pairs.refusals),
    )


JOB = Job(
    name="train alignment",
    config=TrainAlignmentConfig,
    run=run,
    inputs=("latents", "text_embeddings", "events"),
    positional=("latents", "text_embeddings", "events"),
)
