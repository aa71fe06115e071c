"""`lexray train autodecoder`: fit an autodecoder to an events table on Ray Train."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from lexray.errors import LexrayError
from lexray.events.validate import refusals
from lexray.inference.autodecoder import (
    MAX_CALIBRATION,
    REFERENCE,
    SETTINGS_OF_TYPE,
    Autodecoder,
    load_autodecoder,
    read_settings,
    resolve_autodecoder,
)
from lexray.models.autodecoders.learner import Precision, Schedule
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.tables import delta
from lexray.tables.files import require_local_path
from lexray.tables.quarantine import describe_refusals
from lexray.training import event_parts
from lexray.training.autodecoder import AutodecoderTraining
from lexray.training.autodecoder_config import (
    FINE_TUNING,
    MAX_VALIDATION,
    AutodecoderConfig,
    GridConfig,
    ModelType,
    ResnetConfig,
    SplitnetConfig,
)


def _folder_to_begin_with(init: str | None) -> str | None:
    return None if init in (None, "none") else resolve_autodecoder(init)


def _described(settings: Schedule) -> str:
    (model_type,) = (name for name, known in SETTINGS_OF_TYPE.items() if isinstance(settings, known))
    sizes = ", ".join(f"{name} {value}" for name, value in settings.sizes.items())
    return f"a {model_type} ({sizes})"


class TrainAutodecoderConfig(JobConfig):
    """Configuration of `lexray train autodecoder`."""

    out: Annotated[str, AfterValidator(require_local_path)] = Field(
        description="folder of the autodecoder, on a local disk"
    )
    events: str = Field(description="events table")
    former_keys: ClassVar = {"kind": "model_type"}

    model_type: ModelType = Field("splitnet", description="which autodecoder; the section of that name configures it")
    init: Annotated[str | None, AfterValidator(_folder_to_begin_with)] = Field(
        REFERENCE,
        validate_default=True,
        description="autodecoder to begin with: a folder, 'none', or 'reference', Lexray's own, where sizes agree",
    )
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
        if self.workers > self._settings.part_streams:
            raise ValueError(
                f"'{self.model_type}.part_streams' ({self._settings.part_streams}) must be at least 'workers' "
                f"({self.workers})"
            )
        return self

    @property
    def settings(self) -> Schedule:
        """The model type's settings; those of `FINE_TUNING`, if not given, where it begins with another's network."""
        return self._settings if self.init_mismatch is not None else self._settings_of(FINE_TUNING)

    @property
    def _settings(self) -> Schedule:
        return self._settings_of({})

    def _settings_of(self, defaults: Mapping[str, Any]) -> Schedule:
        section: AutodecoderConfig = getattr(self, self.model_type)
        shared = self.model_dump(include={"seed", "patience", "precision", "compile"}, exclude_none=True)
        ours = {key: value for key, value in defaults.items() if key not in section.model_fields_set}
        return section.settings(**shared, **ours)

    @cached_property
    def init_mismatch(self) -> str | None:
        """Why the training cannot begin with the network of `init`; None where it can."""
        if self.init is None:
            return "'init' is 'none'"
        found, wanted = (_described(settings) for settings in (read_settings(self.init), self._settings))
        name = REFERENCE if self.init == resolve_autodecoder(REFERENCE) else self.init
        return None if found == wanted else f"{name} is {found}, this {wanted}"

    @property
    def validated_on(self) -> int:
        """Detections to validate on, at most."""
        return MAX_VALIDATION[self.model_type] if self.max_validation is None else self.max_validation

    @property
    def training(self) -> AutodecoderTraining:
        """The training on Ray; its name is the same for the same data and settings."""
        version = delta.version(self.events)
        begins_with = None if self.init is None or self.init_mismatch else delta.version(self.init)
        return AutodecoderTraining(
            settings=self.settings,
            name=delta.digest(
                [version, self.model_type, asdict(self.settings), self.split_seed, self.validated_on, begins_with]
            ),
            checkpoints=str(Path(f"{self.out}.checkpoints").resolve()),
            workers=self.workers,
            use_gpu=self.use_gpu,
            checkpoint_every=self.checkpoint_every,
            max_failures=self.max_failures,
            init=None if self.init_mismatch else self.init,
        )


def run(config: TrainAutodecoderConfig, context: JobContext) -> JobResult:
    """Train, and write the autodecoder."""
    training = config.training
    if config.init_mismatch and config.init is not None:
        if config.init != resolve_autodecoder(REFERENCE):  # it was asked for
            raise LexrayError(f"{JOB.name}: init: {config.init_mismatch}; give the same sizes, or init=none")
        context.progress.info(f"{JOB.name}: begins with a network drawn at random, since {config.init_mismatch}")
    # Loaded once before any worker starts: one that cannot be is refused here.
    initial = None if training.init is None else load_autodecoder(training.init)
    if config.force:  # a forced training starts from scratch, also after one that was killed
        training.forget()
    n_bands = config.settings.n_bands
    plan = event_parts.plan_training(config.events, config.split_seed, n_bands, config.validated_on)
    refused = refusals(config.events, plan.left_out)
    if refused:  # said before the hours of training, too
        context.progress.warn(f"{JOB.name}: left out {len(refused)} detections: {describe_refusals(refused)}")
    if not any(part.train for part in plan.parts.values()):
        raise LexrayError(f"{config.events}: no detection falls into the training split, there is nothing to fit")
    most = MAX_CALIBRATION[config.model_type]
    with ray_session.session(config.ray), ThreadPoolExecutor(1) as meanwhile:
        # Read while the workers start: this process has nothing else to do.
        sampled = meanwhile.submit(event_parts.sample, plan, n_bands, most) if most else None
        result = training.fit(plan, context.run, context.progress)
    trained_on = plan.held
    if initial is not None and initial.trained_on is not None and trained_on is not None:
        trained_on = initial.trained_on.joined(trained_on)
    trained = Autodecoder(config.settings, result["network"], result["mean_latent"], trained_on=trained_on)
    if sampled is not None:
        trained = trained.calibrated(sampled.result())
    trained.save(config.out)
    training.forget()
    emptied = {name: f"{why}; it was trained on without its events" for name, why in result["emptied"].items()}
    return JobResult(
        counts={**result["counts"], "left_out": len(plan.left_out)},
        metrics=result["metrics"],
        refusals=refused + refusals(config.events, emptied),
        accepted=len(plan) - len(emptied),
    )


JOB = Job("train autodecoder", TrainAutodecoderConfig, run, inputs=("events", "init"), positional=("events",))
