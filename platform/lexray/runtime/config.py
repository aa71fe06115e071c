"""Configuration: one pydantic model per job, read from YAML, overridden by ``--set key=value``.

Unknown keys are refused and the nearest valid one is named. YAML may use OmegaConf's interpolation,
``${workdir}/events`` or ``${oc.env:HOME}``. A key's former name is still read for one version, with a warning.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, model_validator
from pydantic_core import ErrorDetails

from lexray.errors import ConfigError, did_you_mean, first_line, one_line
from lexray.tables.files import credentials_in

_LOG = logging.getLogger("lexray")
_ABSENT = object()


class BaseConfig(BaseModel):
    """Base of every configuration: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    #: Former names of keys, each with its current name.
    former_keys: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _rename_former_keys(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        for former, key in cls.former_keys.items():
            if former in values and key in values:
                raise ValueError(f"'{former}' is the former name of '{key}': set one of them")
        return {cls.former_keys.get(key, key): value for key, value in values.items()}


class TrackingConfig(BaseConfig):
    """The MLflow server and experiment that runs are recorded in."""

    uri: str | None = Field(
        None, description="MLflow tracking URI; by default MLFLOW_TRACKING_URI, else a local SQLite file, mlflow.db"
    )
    experiment: str = Field("lexray", description="MLflow experiment")

    @field_serializer("uri", when_used="json")
    def _without_password(self, uri: str | None) -> str | None:
        """Leave a password in the URI out of JSON, which runs and tables record."""
        return None if uri is None else without_password(uri)


class RayConfig(BaseConfig):
    """How a job gets its Ray session."""

    address: str | None = Field(None, description="Ray cluster to join; by default RAY_ADDRESS, else a local session")
    num_cpus: int | None = Field(
        None, ge=1, description="logical CPUs of a local session; by default the machine's, at least 4"
    )


class JobConfig(BaseConfig):
    """Keys that every job takes."""

    out: str = Field(description="where the result goes: a table's or a model's folder, local or an object store's URI")
    force: bool = Field(False, description="run even where the result is up to date")
    max_bad_fraction: float = Field(
        0.5, ge=0, le=1, description="end with exit code 3 where a larger share of the inputs is refused"
    )
    tracking: TrackingConfig = TrackingConfig()
    ray: RayConfig = RayConfig()

    @property
    def never_skip(self) -> bool:
        """Whether the job itself finds out what there is to do, and is therefore never skipped."""
        return False


C = TypeVar("C", bound=BaseModel)


def read_yaml(
    path: str | None, overrides: Sequence[str] = (), extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read a YAML file and merge overrides into it; later ones win.

    Parameters
    ----------
    path : str or None
        YAML file; None starts from nothing.
    overrides : sequence of str
        ``key=value`` with dotted keys, values in YAML.
    extra : mapping, optional
        Values merged after the file and before the overrides.

    Raises
    ------
    ConfigError
        If the file is missing or is not a YAML mapping, or an override is not ``key=value``.
    """
    for item in overrides:
        if "=" not in item:
            raise ConfigError(f"--set {item}: expected key=value")
    try:
        base = OmegaConf.create({}) if path is None else OmegaConf.load(path)
        if not OmegaConf.is_dict(base):
            raise ConfigError(f"{path}: expected a mapping of keys to values at the top")
        merged = OmegaConf.merge(base, dict(extra or {}), OmegaConf.from_dotlist(list(overrides)))
        return dict(OmegaConf.to_container(merged, resolve=True))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except ConfigError:
        raise
    except (OmegaConfBaseException, OSError, ValueError) as error:
        raise ConfigError(f"{path or 'configuration'}: {first_line(error)}") from error
    except Exception as error:  # PyYAML's errors share no base with OmegaConf's
        raise ConfigError(f"{path or 'configuration'}: not valid YAML: {one_line(error)}") from error


def parse(model: type[C], values: Mapping[str, Any], where: str = "configuration") -> C:
    """Validate `values` against `model`.

    Raises
    ------
    ConfigError
        One line that names each wrong key, what it takes and, for an unknown key, the nearest valid one; or the key
        whose URI holds credentials.
    """
    # Some addresses may hold a password: it is never recorded, and their own checks refuse it where needed.
    for key, text in _texts(values):
        if key not in ("tracking.uri", "endpoint.url", "url") and (problem := _credentials_in(text)):
            raise ConfigError(f"{where}: '{key}': {problem}")
    if renamed := [f"'{former}' is now '{key}'" for former, key in _former_keys_in(model, values)]:
        _LOG.warning("%s: former names of keys are read for one more version: %s", where, ", ".join(renamed))
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_explain(model, item) for item in error.errors())}") from None


def _credentials_in(value: Any) -> str:
    """Why a URI is refused that holds credentials; '' for every other value."""
    return credentials_in(value) if isinstance(value, str) and "://" in value else ""


def former_keys(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Former names of a model's keys with their current names, both dotted where models are nested."""
    own = model.former_keys if issubclass(model, BaseConfig) else {}
    found = {f"{prefix}{former}": f"{prefix}{key}" for former, key in own.items()}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= former_keys(field.annotation, f"{prefix}{name}.")
    return found


def _former_keys_in(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for former, key in former_keys(model).items():
        inner: Any = values
        for part in former.split("."):
            inner = inner.get(part, _ABSENT) if isinstance(inner, Mapping) else _ABSENT
        if inner is not _ABSENT:
            yield former, key


def _texts(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string below `values` with its dotted key."""
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, key)


def without_password(uri: str) -> str:
    """A server's URI as it may be shown and recorded."""
    return re.sub(r"//[^/@]*@", "//…@", uri)


def _explain(model: type[BaseModel], error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        description = _descend(model, error["loc"][:-1]).model_fields[str(error["loc"][-1])].description
        return f"missing key '{key}'" + (f" ({description})" if description else "")
    if not key:  # keys that exclude each other; the validator's message names them
        return error["msg"].removeprefix("Value error, ")
    # A key that was put where its variable's name belongs must not be shown either.
    if _credentials_in(error["input"]) or error["type"] == "string_pattern_mismatch":
        return f"'{key}': {error['msg']}"
    if error["type"] != "extra_forbidden":
        return f"'{key}': {error['msg']}, got {error['input']!r}"
    valid = list(_descend(model, error["loc"][:-1]).model_fields)
    return f"unknown key '{key}'{did_you_mean(str(error['loc'][-1]), valid)}"


def _descend(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Model that holds the key at the end of `path`; the nearest parent where that is not a plain nested model."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break
        model = field.annotation
    return model


def describe(model: type[BaseModel], defaults: BaseModel | None = None) -> Iterator[tuple[str, str, str, str]]:
    """Rows of (key, type, default, meaning) for help texts; nested models are flattened with dotted keys.

    Parameters
    ----------
    model : type
    defaults : model, optional
        Where a model is nested, the instance that is used by default: it may differ from the model's own defaults.
    """
    for name, field in model.model_fields.items():
        annotation = field.annotation
        given = None if field.is_required() else field.get_default(call_default_factory=True)
        default = given if defaults is None else getattr(defaults, name)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            nested = describe(annotation, default if isinstance(default, BaseModel) else None)
            yield from ((f"{name}.{key}", kind, shown, meaning) for key, kind, shown, meaning in nested)
        else:
            type_name = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
            shown = "required" if field.is_required() and defaults is None else repr(default)
            yield name, type_name, shown, field.description or ""
