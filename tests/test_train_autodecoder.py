"""`train autodecoder`, `encode` and `rates` on real Ray, with the failure that each must survive."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lexray import storage
from lexray.autodecoding import load_autodecoder
from lexray.config import parse
from lexray.errors import ConfigError, LexrayError
from lexray.events.eventlist import Bands, EventList, GoodTimeIntervals, from_table, to_table
from lexray.job import Report, execute
from lexray.jobs import encode, rates, train_autodecoder
from lexray.progress import Progress
from lexray.schemas import EVENTS
from lexray.tracking import MlflowClient

pytestmark = pytest.mark.ray

BANDS = Bands((0.5, 1.2, 2.0, 7.0))
SMALL = {"latent_dim": 4, "n_knots": 32, "width": 16, "epochs": 6, "batch": 16, "checkpoint_every": 2, "fit_steps": 20}


def stepping_source(i: int) -> EventList:
    """A source whose rate steps up by five in the middle; two detections a source."""
    random = np.random.default_rng(i)
    time = np.sort(np.concatenate([random.uniform(0, 5e3, 30), random.uniform(5e3, 1e4, 150)]))
    gti = GoodTimeIntervals([0.0], [1e4])
    energy = random.choice(np.array([0.8, 1.5, 4.0], dtype=np.float32), len(time))
    return EventList(f"d{i:03d}", f"s{i // 2:03d}", time, energy, gti, BANDS, 1e4)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> str:
    table = str(tmp_path_factory.mktemp("tables") / "events")
    storage.write(table, "events", EVENTS, to_table([stepping_source(i) for i in range(60)]), n_parts=4)
    return table


def train(events: str, out: Path, **keys: object) -> Report:
    config = parse(train_autodecoder.Config, {"events": events, "out": str(out), **SMALL, **keys})
    return execute(train_autodecoder.JOB, config, Progress())


@pytest.fixture(scope="module")
def trained(ray_session: None, events: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return train(events, tmp_path_factory.mktemp("two") / "autodecoder", workers=2)


def test_two_workers_train_one_decoder_and_log_how(trained: Report) -> None:
    assert np.isfinite(trained.metrics["final_loss"])
    assert trained.counts["detections"] < 60  # the test sources were not seen
    client = MlflowClient()
    history = client.get_metric_history(trained.mlflow_run, "val_gain")
    assert [point.step for point in history] == [2, 4, 6]
    assert client.get_run(trained.mlflow_run).data.params["epochs"] == "6"
    assert not Path(f"{trained.out}.checkpoints").exists()


def test_the_decoder_does_not_depend_on_the_number_of_workers(trained: Report, events: str, tmp_path: Path) -> None:
    alone = train(events, tmp_path / "autodecoder", workers=1)
    one, two = (load_autodecoder(report.out).decoder.state_dict() for report in (alone, trained))
    for name, weights in one.items():
        assert torch.allclose(weights, two[name], atol=2e-3), name
    assert alone.metrics["final_loss"] == pytest.approx(trained.metrics["final_loss"], abs=1e-3)


@pytest.fixture
def dies_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first worker dies in its fourth epoch, once; the folder holds 'died' and 'epochs', those it began."""

    def dying_worker(loop: dict[str, object]) -> None:
        import os
        import time

        import ray.train

        from lexray.models.trainer import Trainer

        run_epoch = Trainer.run_epoch

        def die_once(self: Trainer) -> float:
            first = ray.train.get_context().get_world_rank() == 0
            if first and self.epoch == 3 and not (tmp_path / "died").exists():
                # Ray Train takes note of a checkpoint some time after it was handed in.
                while not list(tmp_path.glob("*.checkpoints/*/checkpoint_manager_snapshot.json")):
                    time.sleep(0.05)
                (tmp_path / "died").touch()
                os._exit(1)
            if first:
                with (tmp_path / "epochs").open("a") as file:
                    file.write(f"{self.epoch}\n")
            return run_epoch(self)

        Trainer.run_epoch = die_once  # in the worker's process only
        train_autodecoder.train_worker(loop)

    monkeypatch.setattr(train_autodecoder, "worker", dying_worker)
    return tmp_path


def same_weights(one: Report, other: Report) -> bool:
    first, second = (load_autodecoder(report.out).decoder.state_dict() for report in (one, other))
    return all(torch.allclose(weights, second[name], atol=1e-5) for name, weights in first.items())


def test_a_killed_worker_costs_no_more_than_since_the_last_checkpoint(
    trained: Report, events: str, dies_once: Path
) -> None:
    """Training resumes at the second epoch's end, and ends as if nothing had happened."""
    report = train(events, dies_once / "autodecoder", workers=2)
    assert (dies_once / "epochs").read_text().split() == ["0", "1", "2", "2", "3", "4", "5"]
    assert same_weights(report, trained)


def test_a_training_that_failed_goes_on_from_its_checkpoint_when_run_again(
    trained: Report, events: str, dies_once: Path
) -> None:
    out = dies_once / "autodecoder"
    with pytest.raises(LexrayError, match="train autodecoder"):
        train(events, out, workers=2, max_failures=0)
    assert not out.exists()
    report = train(events, out, workers=2, max_failures=0)
    assert (dies_once / "epochs").read_text().split() == ["0", "1", "2", "2", "3", "4", "5"]
    assert same_weights(report, trained)


def test_encode_and_rates_write_every_detection(trained: Report, events: str, tmp_path: Path) -> None:
    keys = {"events": events, "autodecoder": trained.out}
    config = parse(encode.Config, {**keys, "out": str(tmp_path / "latents")})
    assert execute(encode.JOB, config, Progress()).counts == {"detections": 60}
    config_rates = parse(rates.Config, {**keys, "out": str(tmp_path / "rates"), "bins": 50})
    execute(rates.JOB, config_rates, Progress())

    rows = storage.read(events, order="detection_id")
    found = storage.read(str(tmp_path / "latents"), order="detection_id")
    assert found["detection_id"].to_pylist() == rows["detection_id"].to_pylist()
    model = load_autodecoder(trained.out)
    expected = model.encode(from_table(rows))
    latent = found["latent"].combine_chunks().flatten().to_numpy().reshape(60, model.latent_dim)
    np.testing.assert_allclose(latent, expected.latent, atol=5e-3)

    curves = storage.read(str(tmp_path / "rates")).to_pandas()
    assert len(curves) == 180
    one = curves[curves.detection_id == "d007"].set_index("band")
    _, rate = model.rate(stepping_source(7), bins=50)
    for band in range(3):
        np.testing.assert_allclose(one.rate[band], rate[band], rtol=0.05)
    assert execute(encode.JOB, config, Progress()).skipped


def test_a_table_without_training_sources_is_refused(ray_session: None, tmp_path: Path) -> None:
    empty = str(tmp_path / "events")
    storage.commit(empty, "events", EVENTS, [])
    with pytest.raises(LexrayError, match="no detection falls into the training split"):
        train(empty, tmp_path / "autodecoder")


def test_a_uri_is_refused_where_models_are_written(events: str) -> None:
    with pytest.raises(ConfigError, match=r"'out'.*it takes a local folder"):
        parse(train_autodecoder.Config, {"events": events, "out": "s3://bucket/autodecoder"})
