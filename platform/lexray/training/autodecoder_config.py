"""Sections of a training's configuration, one for each type of autodecoder, made from the types' settings.

A key's default, bounds and meaning are those of its field in the settings (`lexray.models.autodecoders.learner`); what
all types share (seed, patience, precision …) stands above the sections.
"""

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, create_model, field_validator

from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.resnet.training import ResnetSettings
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.runtime.config import BaseConfig

ModelType = Literal["splitnet", "grid", "resnet"]
#: Detections that each model type is validated on, at most: what is quick for one is hours for another.
MAX_VALIDATION: dict[ModelType, int] = {"splitnet": 2000, "grid": 2000, "resnet": 16}
C = TypeVar("C", bound=BaseConfig)


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


def keys_of(settings: type, base: type[C], without: Collection[str] = ()) -> type[C]:
    """A configuration with the keys of `base` and one for each described field of a dataclass.

    Parameters
    ----------
    settings : type
        A dataclass. A field whose default alone is another than its parent's keeps the parent's bounds and meaning.
    base : type
        A configuration.
    without : collection of str
        Fields that get no key.
    """
    types: dict[str, type] = get_type_hints(settings)
    keys: dict[str, Any] = {}
    for field in fields(settings):
        if is_dataclass(types[field.name]):
            nested = keys_of(types[field.name], BaseConfig)
            keys[field.name] = nested, nested()
        elif (described := _described(settings, field.name)) and field.name not in without:
            keys[field.name] = types[field.name], Field(field.default, **described)
    return create_model(f"{settings.__name__}Keys", __base__=base, **keys)


def _described(settings: type, name: str) -> dict[str, Any]:
    parents = (parent.__dict__.get("__dataclass_fields__", {}) for parent in settings.__mro__)
    return next((dict(own[name].metadata) for own in parents if name in own and own[name].metadata), {})


class SplitnetConfig(keys_of(SplitnetSettings, AutodecoderConfig, without=["latent_learning_rate"])):  # type: ignore[misc]
    """Configuration of the `splitnet` autodecoder."""

    former_keys: ClassVar = {
        **AutodecoderConfig.former_keys,
        "contaminate": "background_augmentation",
        "hide": "gap_augmentation",
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
