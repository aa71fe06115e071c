"""`lexray tune`: the search, its record, and the spaces that it refuses."""

from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from mlflow.tracking import MlflowClient

from aligned_tables import write_tables
from lexray.errors import ConfigError
from lexray.jobs import train_alignment, tune
from lexray.models.alignment.trainer import AlignmentSettings
from lexray.runtime.config import parse, read_yaml
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.training.search_space import Domain, parse_space

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = {"latents": "l", "text_embeddings": "t", "events": "e", "out": "o"}


@pytest.mark.ray
def test_search_finds_reports_and_survives_a_failed_trial(tmp_path: Path, ray_session: None) -> None:
    tables = write_tables(tmp_path, 200)
    # 50 dimensions do not divide by 4 members: such a draw cannot be trained.
    space = {
        "learning_rate": {"loguniform": [1e-5, 1e-2]},
        "dimension": {"choice": [48, 50]},
        "members": {"choice": [2, 4]},
    }
    values = {"base": {**tables.keys(), "epochs": 12}, "space": space, "samples": 6, "out": str(tmp_path / "tuned")}
    # One at a time: successive halving judges a trial by those that came to its rung before it, so that with two at a
    # time the scheduler's timing decides which one is stopped, and whether any is.
    scheduling = {"asha": {"grace_period": 2, "reduction_factor": 2}, "max_concurrent": 1, "seed": 1}
    config = parse(tune.TuneConfig, {**values, **scheduling})
    report = execute(tune.JOB, config, Progress())

    rows = pyarrow.parquet.read_table(f"{config.out}/trials.parquet").to_pylist()
    assert len(rows) == 6
    for row in rows:
        fits = row["dimension"] % row["members"] == 0
        assert (row["status"] == "failed") == (not fits)
        assert ("no multiple of" in row["error"]) == (not fits)
    failed = [row for row in rows if row["status"] == "failed"]
    good = [row for row in rows if row["status"] != "failed"]
    assert failed
    assert any(row["status"] == "stopped" and row["epochs"] < 12 for row in good)
    assert report.counts["failed"] == len(failed)
    best = min(good, key=lambda row: row["val/loss"])
    assert report.metrics["best/val/loss"] == best["val/loss"]

    chosen = parse(train_alignment.TrainAlignmentConfig, {**read_yaml(f"{config.out}/best.yaml"), "out": "somewhere"})
    assert chosen.settings.learning_rate == best["learning_rate"]
    assert (chosen.dimension, chosen.members, chosen.epochs) == (best["dimension"], best["members"], 12)

    job_run = report.mlflow_run
    client = MlflowClient()
    experiment = client.get_run(job_run).info.experiment_id
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{job_run}'")
    by_id = {run.info.run_id: run for run in nested}
    assert set(by_id) == {row["mlflow_run"] for row in rows}
    for row in rows:
        run = by_id[row["mlflow_run"]]
        assert run.info.status == ("FAILED" if row["status"] == "failed" else "FINISHED")
        assert len(client.get_metric_history(run.info.run_id, "val/loss")) == row["epochs"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "'space' is empty"),
        ({"dropuot": {"uniform": [0, 1]}}, "'space.dropuot': .* did you mean 'dropout'"),
        ({"latents": {"choice": ["a"]}}, "'space.latents': not a key that can be searched"),
        ({"dropout": [0.0, 0.5]}, "'space.dropout': takes one of uniform"),
        ({"dropout": {"normal": [0.0, 0.5]}}, "unknown kind 'normal'"),
        ({"dropout": {"uniform": [0.5, 0.1]}}, "the lower first"),
        ({"dropout": {"uniform": [0.0, 1.5]}}, "'space.dropout': .*less than 1, got 1.5"),
        ({"learning_rate": {"loguniform": [0, 1]}}, "above 0"),
        ({"hidden": {"uniform": [8, 64]}}, "whole numbers: use randint or choice"),
        ({"hidden": {"randint": [8.5, 64]}}, "whole numbers, both ends"),
        ({"hidden": {"choice": [64, "wide"]}}, "got 'wide'"),
        ({"hidden": {"choice": []}}, "choice takes"),
    ],
)
def test_wrong_space_is_refused(space: dict[str, Any], message: str) -> None:
    keys = list(AlignmentSettings.__dataclass_fields__)
    with pytest.raises(ConfigError, match=message):
        parse_space(space, train_alignment.TrainAlignmentConfig, BASE, keys)


def test_space_of_the_shipped_sweep_is_valid() -> None:
    config = parse(tune.TuneConfig, {**read_yaml(str(CONFIGS / "tune" / "alignment.yaml")), "out": "o"})
    space = parse_space(
        config.space,
        train_alignment.TrainAlignmentConfig,
        {**config.base, "out": "o"},
        list(AlignmentSettings.__dataclass_fields__),
    )
    assert space["hidden"] == Domain("choice", (64, 128, 256))
    assert config.training.epochs == 200
    assert config.tables == ["latents", "text_embeddings", "events"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheduler": "asha"}, "unknown key 'scheduler', did you mean"),  # a key of 0.1
        ({"metric": "loss"}, "'metric': .*one of train/loss, val/loss"),
        ({"asha": {"grace": 3}}, "did you mean 'asha.?grace_period|did you mean 'grace_period'"),
    ],
)
def test_wrong_search_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(tune.TuneConfig, {"base": BASE, "space": {"dropout": {"uniform": [0, 0.5]}}, "out": "o", **values})


def test_base_is_checked_before_anything_runs(tmp_path: Path) -> None:
    values = {"base": {"latents": "l", "hiden": 3}, "space": {"dropout": {"uniform": [0, 0.5]}}}
    config = parse(tune.TuneConfig, {**values, "out": str(tmp_path / "t")})
    with pytest.raises(ConfigError, match=r"base: .*did you mean 'hidden'"):
        execute(tune.JOB, config, Progress())
