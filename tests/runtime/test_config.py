"""Configuration: what is said to whoever writes a wrong key or value, and what errors carry."""

import pickle
import string
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from lexray.errors import ConfigError, LexrayError, RefusedInput
from lexray.runtime.config import BaseConfig, JobConfig, TrackingConfig, describe, parse, read_yaml
from lexray.runtime.ray_internals import find_user_error
from lexray.tables.files import resolve_path


class Inner(BaseConfig):
    former_keys: ClassVar = {"hidden": "width"}

    width: int = Field(128, ge=1, description="hidden units")
    penalty: float = 0.5


class Outer(BaseConfig):
    former_keys: ClassVar = {"event_table": "events"}

    events: str = Field(description="events table")
    decoder: Inner = Inner()
    bands: list[float] = Field([0.5, 7.0])


def test_yaml_is_read_merged_and_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "workdir: /data\nevents: ${workdir}/events\nhome: ${oc.env:PLACE}\ndecoder: {width: 64, penalty: 1}\n"
    )
    monkeypatch.setenv("PLACE", "here")

    values = read_yaml(str(file), ["decoder.width=32", "bands=[1, 2.5]", "workdir=/other"], {"decoder": {"penalty": 2}})

    assert values == {
        "workdir": "/other",
        "events": "/other/events",
        "home": "here",
        "decoder": {"width": 32, "penalty": 2},
        "bands": [1, 2.5],
    }


def test_lists_in_overrides_may_interpolate(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("workdir: w\ninputs: []\n")
    assert read_yaml(str(file), ['inputs=["${workdir}/archive/events","../real"]'])["inputs"] == [
        "w/archive/events",
        "../real",
    ]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (None, [], r"absent\.yaml: no such configuration file"),
        ("- 1\n- 2\n", [], "expected a mapping"),
        ("a: [1, 2", [], "not valid YAML"),
        ("a: ${b}\n", [], "job.yaml: .*'b' not found"),
        ("a: ${oc.env:LEXRAY_IS_NOT_SET}\n", [], "LEXRAY_IS_NOT_SET"),
        ("a: 1\n", ["b"], "--set b: expected key=value"),
    ],
)
def test_unreadable_configuration_is_one_clear_line(
    tmp_path: Path, text: str | None, overrides: list[str], message: str
) -> None:
    file = tmp_path / ("absent.yaml" if text is None else "job.yaml")
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(str(file), overrides)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"events": "e", "bnds": []}, "unknown key 'bnds', did you mean 'bands'?"),
        ({"events": "e", "decoder": {"widht": 3}}, "unknown key 'decoder.widht', did you mean 'width'?"),
        ({}, "missing key 'events' (events table)"),
        (
            {"events": "e", "decoder": {"width": 0}},
            "'decoder.width': Input should be greater than or equal to 1, got 0",
        ),
        ({"events": "e", "bands": [1, "wide"]}, "'bands.1': Input should be a valid number"),
        ({"events": 3, "decoder": 4}, "'events': Input should be a valid string, got 3; 'decoder': "),
    ],
)
def test_wrong_keys_and_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, values, "here.yaml")
    assert str(caught.value).startswith("here.yaml: ")
    assert message in str(caught.value)


@given(st.sampled_from(sorted(JobConfig.model_fields)), st.integers(0, 20), st.sampled_from(string.ascii_lowercase))
def test_one_wrong_letter_names_the_key_that_was_meant(key: str, at: int, letter: str) -> None:
    typo = key[: at % len(key)] + letter + key[at % len(key) + 1 :]
    if typo in JobConfig.model_fields:
        return
    with pytest.raises(ConfigError, match=f"unknown key '{typo}'") as caught:
        parse(JobConfig, {"out": "x", typo: 1})
    if len(key) > 4:  # of 'out' and 'ray' one letter is a third
        assert f"did you mean '{key}'?" in str(caught.value)


def test_a_configuration_cannot_be_changed() -> None:
    config = parse(Outer, {"events": "e"})
    with pytest.raises(ValueError, match="frozen"):
        config.events = "other"  # type: ignore[misc]


def test_every_key_is_described_with_its_default() -> None:
    rows = {key: (kind, default, meaning) for key, kind, default, meaning in describe(Outer)}
    assert rows["events"] == ("str", "required", "events table")
    assert rows["decoder.width"] == ("int", "128", "hidden units")
    assert list(rows) == ["events", "decoder.width", "decoder.penalty", "bands"]


def test_paths_become_absolute_and_uris_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_path("events") == str(tmp_path / "events")
    assert resolve_path("s3://bucket/events") == "s3://bucket/events"


def test_a_refusal_travels_between_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(RefusedInput("unknown_mission", "'babasone'")))  # noqa: S301
    assert (error.reason, error.detail, str(error)) == ("unknown_mission", "'babasone'", "unknown_mission: 'babasone'")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_error_for_people_is_found_inside_what_ray_raises() -> None:
    def fail(_: object) -> object:
        raise ConfigError("the bands do not fit")

    with pytest.raises(Exception) as core:
        ray.get(ray.remote(fail).remote(0))
    with pytest.raises(Exception) as data:
        ray.data.range(1).map(fail).materialize()

    for caught in (core, data):
        plain = find_user_error(caught.value)
        assert isinstance(plain, ConfigError)
        assert str(plain) == "the bands do not fit"


def test_other_errors_are_not_for_people() -> None:
    assert find_user_error(ValueError("x")) is None
    error = ValueError("x")
    error.__cause__ = LexrayError("why")
    assert str(find_user_error(error)) == "why"


class Endpoint(BaseConfig):
    """Keys of which one names a variable, and two of which come together."""

    key_env: str = Field("KEY", pattern=r"^[A-Z_]+$", description="variable that holds the key")
    first: int | None = None
    second: int | None = None

    @model_validator(mode="after")
    def _together(self) -> "Endpoint":
        if (self.first is None) != (self.second is None):
            raise ValueError("'first' and 'second' come together")
        return self


def test_keys_that_do_not_fit_together_are_said_in_one_line_without_all_others() -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Endpoint, {"first": 1})
    assert str(refused.value) == "configuration: 'first' and 'second' come together"


def test_a_secret_put_where_its_variables_name_belongs_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="'key_env': String should match") as refused:
        parse(Endpoint, {"key_env": "sk-secret"})
    assert "sk-secret" not in str(refused.value)


def test_a_former_name_of_a_key_is_read_with_one_line_of_warning(caplog: pytest.LogCaptureFixture) -> None:
    parsed = parse(Outer, {"event_table": "e", "decoder": {"hidden": 64}}, "job.yaml")
    assert (parsed.events, parsed.decoder.width) == ("e", 64)
    assert [record.getMessage() for record in caplog.records] == [
        "job.yaml: former names of keys are read for one more version: 'event_table' is now 'events', "
        "'decoder.hidden' is now 'decoder.width'"
    ]


def test_a_key_by_both_of_its_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="'event_table' is the former name of 'events': set one of them"):
        parse(Outer, {"event_table": "e", "events": "f"})


def test_a_value_that_holds_a_password_is_not_repeated() -> None:
    class Service(BaseConfig):
        url: Literal["http://here"]

    with pytest.raises(ConfigError) as refused:
        parse(Service, {"url": "http://me:hunter2@here"})
    assert "'url'" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_password_of_the_tracking_server_is_used_and_not_recorded() -> None:
    tracking = TrackingConfig(uri="postgresql://me:hunter2@db/mlflow")
    assert tracking.model_dump()["uri"] == "postgresql://me:hunter2@db/mlflow"
    assert tracking.model_dump(mode="json")["uri"] == "postgresql://…@db/mlflow"
