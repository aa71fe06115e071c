"""Sections of a training's configuration, one for each type of autodecoder, made from the types' settings.

A key's default, bounds and meaning are those of its field in the settings (`lexray.models.autodecoders.learner`); what
all types share (seed, patience, precision …) stands above the sections.
"""

from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, field_validator

from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.resnet.training import ResnetSettings
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.runtime.config import BaseConfig
from lexray.training.settings_keys import keys_of

ModelType = Literal["splitnet", "grid", "resnet"]
#: Detections that each model type is validated on, at most: what is quick for one is hours for another.
MAX_VALIDATION: dict[ModelType, int] = {"splitnet": 2000, "grid": 2000, "resnet": 16}

#: Settings of a training that begins with the reference's network (decision record 15).
FINE_TUNING = {"epochs": 4, "learning_rate": 1e-3}


class AutodecoderConfig(BaseConfig):
    """Configuration of one model type."""

    former_keys: ClassVar = {
        "batch": "batch_size",
        "clip": "grad_clip_norm",
        "warm_up": "warmup_steps",
        "lanes": "part_streams",
    }
    #: What the library takes.
    settings_type: ClassVar[type[Schedule]]

    def settings(self, **shared: Any) -> Schedule:
        """What the library takes, with the keys that all types share."""
        return TypeAdapter(self.settings_type).validate_python({**self.model_dump(), **shared})


class SplitnetConfig(keys_of(SplitnetSettings, AutodecoderConfig, without=["latent_learning_rate"])):  # type: ignore[misc]
    """Configuration of the `splitnet` autodecoder."""

    former_keys: ClassVar = {
        **AutodecoderConfig.former_keys,
        "contaminate": "background_augmentation",
    }
    settings_type: ClassVar = SplitnetSettings


class GridConfig(keys_of(GridSettings, AutodecoderConfig)):  # type: ignore[misc]
    """Configuration of the `grid` autodecoder."""

    former_keys: ClassVar = {
        **AutodecoderConfig.former_keys,
        "fit_stiffness": "fit_tv_weight",
        "lone": "single_detection_weight",
    }
    settings_type: ClassVar = GridSettings

    @field_validator("n_knots")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("it takes a power of two")
        return value


class ResnetConfig(keys_of(ResnetSettings, AutodecoderConfig)):  # type: ignore[misc]
    """Configuration of the `resnet` autodecoder: the published one."""

    settings_type: ClassVar = ResnetSettings
