"""Types of autodecoder that can be trained: a section of the configuration for each, in one mapping.

Defaults are those of the type's settings; what all types share (seed, patience, precision …) stands above the sections.
"""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from lexray.models.autodecoders.grid.training import GridPenaltyWeights, GridSettings
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.resnet import loss
from lexray.models.autodecoders.resnet.training import ResnetSettings
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.runtime.config import BaseConfig

ModelType = Literal["splitnet", "grid", "resnet"]
#: Detections that each model type is validated on, at most: what is quick for one is hours for another.
MAX_VALIDATION: dict[ModelType, int] = {"splitnet": 2000, "grid": 2000, "resnet": 16}

Epochs = Annotated[int, Field(ge=1, description="passes over the training's detections")]
BatchSize = Annotated[int, Field(ge=1, description="detections a step, over all workers")]
LearningRate = Annotated[float, Field(ge=0, description="network's highest learning rate")]
LatentLearningRate = Annotated[float, Field(ge=0, description="latents' highest learning rate")]
WeightDecay = Annotated[float, Field(ge=0, description="of AdamW, on the network's weights")]
GradClipNorm = Annotated[float, Field(gt=0, description="largest norm of the network's gradient per photon")]
WarmupSteps = Annotated[int, Field(ge=0, description="steps until the learning rates are at their highest")]
Ema = Annotated[
    float, Field(ge=0, lt=1, description="decay a step of the weights' moving average that is kept; 0: off")
]
PartStreams = Annotated[
    int, Field(ge=1, description="streams of parts that a batch is drawn from; at least the workers")
]
NumberOfBands = Annotated[int, Field(ge=1, description="energy bands of a detection; others are left out")]
LatentDim = Annotated[int, Field(ge=1, description="numbers in a latent")]
Width = Annotated[int, Field(ge=1, description="hidden units of a layer")]
FitSteps = Annotated[int, Field(ge=1, description="optimiser steps for the latent of a new detection")]
FitLearningRate = Annotated[float, Field(gt=0, description="learning rate of these steps")]
Blocks = Annotated[int, Field(ge=1, description="residual blocks")]
Weight = Annotated[float, Field(ge=0)]


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("it takes a power of two")
    return value


class AutodecoderConfig(BaseConfig):
    """Configuration of one model type."""

    former_keys: ClassVar = {
        "batch": "batch_size",
        "clip": "grad_clip_norm",
        "warm_up": "warmup_steps",
        "lanes": "part_streams",
    }

    epochs: Epochs = GridSettings.epochs
    batch_size: BatchSize = GridSettings.batch_size
    learning_rate: LearningRate = GridSettings.learning_rate
    weight_decay: WeightDecay = GridSettings.weight_decay
    grad_clip_norm: GradClipNorm = GridSettings.grad_clip_norm
    warmup_steps: WarmupSteps = GridSettings.warmup_steps
    ema: Ema = GridSettings.ema
    part_streams: PartStreams = GridSettings.part_streams
    n_bands: NumberOfBands = GridSettings.n_bands

    @abstractmethod
    def settings(self, **shared: Any) -> Schedule:
        """What the library takes, with the keys that all types share."""


class SplitnetConfig(AutodecoderConfig):
    """Configuration of the `splitnet` autodecoder."""

    former_keys: ClassVar = {
        **AutodecoderConfig.former_keys,
        "contaminate": "background_augmentation",
        "hide": "gap_augmentation",
    }

    epochs: Epochs = SplitnetSettings.epochs
    batch_size: BatchSize = SplitnetSettings.batch_size
    learning_rate: LearningRate = SplitnetSettings.learning_rate
    weight_decay: WeightDecay = SplitnetSettings.weight_decay
    warmup_steps: WarmupSteps = SplitnetSettings.warmup_steps
    ema: Ema = SplitnetSettings.ema
    width: Width = SplitnetSettings.width
    blocks: Blocks = SplitnetSettings.blocks
    spectral_features: int = Field(
        SplitnetSettings.spectral_features, ge=1, description="numbers that the photons' energies add to the features"
    )
    background_augmentation: float = Field(
        SplitnetSettings.background_augmentation,
        ge=0,
        le=1,
        description="share trained with another's photons as background",
    )
    gap_augmentation: float = Field(
        SplitnetSettings.gap_augmentation, ge=0, le=1, description="share trained with parts of their good time hidden"
    )

    def settings(self, **shared: Any) -> SplitnetSettings:
        """As `AutodecoderConfig.settings`."""
        return SplitnetSettings(**self.model_dump(), **shared)


class GridPenaltiesConfig(BaseConfig):
    """Weights of the penalties, relative to the log-likelihood in nats."""

    tv_mean: Weight = Field(
        GridPenaltyWeights.tv_mean, description="total variation of the log-rate's mean over the bands"
    )
    tv_deviation: Weight = Field(
        GridPenaltyWeights.tv_deviation, description="total variation of each band's deviation from that mean"
    )
    latent: Weight = Field(GridPenaltyWeights.latent, description="squared norm of the latent")


class GridConfig(AutodecoderConfig):
    """Configuration of the `grid` autodecoder."""

    former_keys: ClassVar = {
        **AutodecoderConfig.former_keys,
        "fit_stiffness": "fit_tv_weight",
        "lone": "single_detection_weight",
    }

    latent_learning_rate: LatentLearningRate = GridSettings.latent_learning_rate
    latent_dim: LatentDim = GridSettings.latent_dim
    n_knots: Annotated[int, AfterValidator(_power_of_two)] = Field(
        GridSettings.n_knots, ge=4, description="knots of the rate in time; a power of two"
    )
    width: Width = GridSettings.width
    fit_steps: FitSteps = GridSettings.fit_steps
    fit_learning_rate: FitLearningRate = GridSettings.fit_learning_rate
    fit_tv_weight: float = Field(
        GridSettings.fit_tv_weight, gt=0, description="factor on the total variations' penalties for a new detection"
    )
    single_detection_weight: float = Field(
        GridSettings.single_detection_weight,
        ge=0,
        le=1,
        description="share in a new detection's log-rate of its fit without the network",
    )
    penalties: GridPenaltiesConfig = GridPenaltiesConfig()

    def settings(self, **shared: Any) -> GridSettings:
        """As `AutodecoderConfig.settings`."""
        own = {**self.model_dump(), "penalties": GridPenaltyWeights(**self.penalties.model_dump())}
        return GridSettings(**own, **shared)


class ResnetPenaltiesConfig(BaseConfig):
    """Weights of the penalties, relative to the log-likelihood in nats."""

    total_variation: Weight = Field(
        loss.ResnetPenaltyWeights.total_variation, description="mean absolute change of the rate, on mesh and photons"
    )
    latent: Weight = Field(loss.ResnetPenaltyWeights.latent, description="squared norm of the latent")


class ResnetConfig(AutodecoderConfig):
    """Configuration of the `resnet` autodecoder: the published one."""

    epochs: Epochs = ResnetSettings.epochs
    batch_size: BatchSize = ResnetSettings.batch_size
    learning_rate: LearningRate = ResnetSettings.learning_rate
    latent_learning_rate: LatentLearningRate = ResnetSettings.latent_learning_rate
    weight_decay: WeightDecay = ResnetSettings.weight_decay
    grad_clip_norm: GradClipNorm = ResnetSettings.grad_clip_norm
    latent_dim: LatentDim = ResnetSettings.latent_dim
    width: Width = ResnetSettings.width
    blocks: Blocks = ResnetSettings.blocks
    octaves: int = Field(ResnetSettings.octaves, ge=1, description="octaves of the positional encoding of time")
    n_steps: int = Field(ResnetSettings.n_steps, ge=2, description="steps of the rate's integral, a detection")
    shortest: float = Field(ResnetSettings.shortest, gt=0, description="seconds that are one unit of scaled time")
    good_time: bool = Field(
        ResnetSettings.good_time, description="integrate over good time only; as published, up to the last photon"
    )
    fit_steps: FitSteps = ResnetSettings.fit_steps
    fit_learning_rate: FitLearningRate = ResnetSettings.fit_learning_rate
    penalties: ResnetPenaltiesConfig = ResnetPenaltiesConfig()

    def settings(self, **shared: Any) -> ResnetSettings:
        """As `AutodecoderConfig.settings`."""
        own = {**self.model_dump(), "penalties": loss.ResnetPenaltyWeights(**self.penalties.model_dump())}
        return ResnetSettings(**own, **shared)
