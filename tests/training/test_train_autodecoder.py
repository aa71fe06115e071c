"""`train autodecoder`, `encode` and `rates` on real Ray, with the failure that each must survive."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from builders import ENERGIES, event_list
from lexray.errors import ConfigError, LexrayError
from lexray.events.arrow import from_table, to_table
from lexray.events.eventlist import EventList
from lexray.inference.autodecoder import SETTINGS_OF_TYPE, load_autodecoder
from lexray.jobs import encode, rates, train_autodecoder
from lexray.models.autodecoders.trainer import AutodecoderTrainer
from lexray.runtime.config import describe, parse
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.runtime.tracking import MlflowClient
from lexray.tables import delta
from lexray.tables.schemas import EVENTS
from lexray.training import autodecoder, event_parts
from lexray.training.autodecoder_config import MAX_VALIDATION

pytestmark = pytest.mark.ray

GRID = {"latent_dim": 4, "n_knots": 32, "width": 16, "epochs": 6, "batch_size": 16, "fit_steps": 20}


def stepping_source(i: int) -> EventList:
    """A source whose rate steps up by five in the middle; two detections a source."""
    random = np.random.default_rng(i)
    time = np.concatenate([random.uniform(0, 5e3, 30), random.uniform(5e3, 1e4, 150)])
    energy = random.choice(ENERGIES, len(time))
    return event_list(time, energy, detection_id=f"d{i:03d}", source_id=f"s{i // 2:03d}")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 detections, and one whose first event has no time."""
    table = str(tmp_path_factory.mktemp("tables") / "events")
    rows = to_table([stepping_source(i) for i in range(61)]).to_pylist()
    rows[60]["time"][0] = float("nan")
    delta.write(table, "events", EVENTS, pa.Table.from_pylist(rows, EVENTS), n_parts=4)
    return table


def train_keys(events: str) -> dict[str, object]:
    return {"events": events, "model_type": "grid", "grid": GRID, "checkpoint_every": 2}


def train(events: str, out: Path, **keys: object) -> JobReport:
    config = parse(train_autodecoder.TrainAutodecoderConfig, {**train_keys(events), "out": str(out), **keys})
    return execute(train_autodecoder.JOB, config, Progress())


@pytest.fixture(scope="module")
def trained(ray_session: None, events: str, tmp_path_factory: pytest.TempPathFactory) -> JobReport:
    return train(events, tmp_path_factory.mktemp("two") / "autodecoder", workers=2)


def test_two_workers_train_one_decoder_and_log_how(trained: JobReport) -> None:
    assert np.isfinite(trained.metrics["final_loss"])
    assert 0 < trained.counts["detections"] < 60  # the test sources were not seen
    assert trained.counts["epochs"] == 6
    (refused,) = delta.read(trained.refusals)["detail"].to_pylist()  # by the worker that met it
    fault = "has an event without a time, or outside its energy bands"
    assert refused == f"detection d060 {fault}; it was trained on without its events"
    assert (trained.counts["left_out"], trained.counts["emptied"]) == (0, 1)
    client = MlflowClient()
    for name in ("loss", "val_gain", "sources_per_s", "skipped_steps"):
        assert len(client.get_metric_history(trained.mlflow_run, name)) == 3
    assert [point.value for point in client.get_metric_history(trained.mlflow_run, "epoch")] == [2, 4, 6]
    assert client.get_run(trained.mlflow_run).data.params["grid.epochs"] == "6"
    assert not Path(f"{trained.out}.checkpoints").exists()


def test_the_decoder_does_not_depend_on_the_number_of_workers(trained: JobReport, events: str) -> None:
    """One trainer in this process ends where two workers of Ray Train do."""
    config = parse(train_autodecoder.TrainAutodecoderConfig, {**train_keys(events), "out": "out"})
    settings = config.settings
    plan = event_parts.plan_training(events, config.split_seed, settings.n_bands, config.validated_on)
    alone = AutodecoderTrainer(settings, event_parts.EventsTable(plan.parts, settings.n_bands))
    while not alone.finished:
        for _ in range(2 * alone.steps_per_epoch):
            alone.run_step()
        alone.evaluate()
    two = load_autodecoder(trained.out).network.state_dict()
    for name, weights in alone.result()["network"].items():
        assert torch.allclose(weights, two[name], atol=2e-3), name
    assert alone.loss == pytest.approx(trained.metrics["final_loss"], abs=1e-3)
    assert alone.n_detections == trained.counts["detections"]


@pytest.fixture
def dies_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first worker dies once in its fourth epoch and once in its sixth; 'steps' holds those that it began."""

    def dying_worker(loop: dict[str, object]) -> None:
        import os
        import re
        import time

        import ray.train

        from lexray.models.autodecoders.trainer import AutodecoderTrainer

        run_step = AutodecoderTrainer.run_step

        def checkpoints() -> set[str]:
            """Those that Ray Train has taken note of, which is some time after they were handed in."""
            notes = tmp_path.glob("*.checkpoints/*/checkpoint_manager_snapshot.json")
            return {name for note in notes for name in re.findall(r'"checkpoint_dir_name": *"(.+?)"', note.read_text())}

        def die(self: AutodecoderTrainer) -> float:
            first = ray.train.get_context().get_world_rank() == 0
            for epoch, n_checkpoints in ((3, 1), (5, 2)):
                died = tmp_path / f"died in {epoch}"
                if first and self.step == epoch * self.steps_per_epoch + 1 and not died.exists():
                    since = time.monotonic()
                    while len(checkpoints()) < n_checkpoints:
                        time.sleep(0.05)
                        if time.monotonic() - since > 120:
                            raise RuntimeError(f"Ray Train took note of {checkpoints()}")
                    died.touch()
                    os._exit(1)
            if first:
                with (tmp_path / "steps").open("a") as file:
                    file.write(f"{self.step / self.steps_per_epoch}\n")
            return run_step(self)

        AutodecoderTrainer.run_step = die  # in the worker's process only
        autodecoder.train_worker(loop)

    monkeypatch.setattr(autodecoder, "worker", dying_worker)
    return tmp_path


def test_a_killed_worker_costs_no_more_than_since_the_last_checkpoint(
    trained: JobReport, events: str, dies_twice: Path
) -> None:
    """A training that failed goes on from its checkpoint when run again, a worker that died where it may be replaced.

    Both go on as if nothing had happened.
    """
    out = dies_twice / "autodecoder"
    with pytest.raises(LexrayError, match="train autodecoder"):
        train(events, out, workers=2, max_failures=0)
    assert not out.exists()
    report = train(events, out, workers=2, max_failures=1)
    epochs = [epoch for epoch in map(float, (dies_twice / "steps").read_text().split()) if epoch % 1 == 0]
    assert epochs == [0, 1, 2, 3, 2, 3, 4, 5, 4, 5]
    weights, undisturbed = (load_autodecoder(done.out).network.state_dict() for done in (report, trained))
    for name, value in undisturbed.items():
        assert torch.allclose(weights[name], value, atol=1e-5), name


def test_a_training_that_diverges_ends_with_one_line_that_names_detections(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not started again `max_failures` times; and invalid rows are left out, not fatal."""
    rows = to_table([stepping_source(i) for i in range(40)]).to_pylist()
    rows[0]["exposure"], rows[1]["gti_stop"] = 0.0, rows[1]["gti_start"]
    rows[2]["time"][0] = float("nan")
    table = str(tmp_path / "events")
    delta.write(table, "events", EVENTS, pa.Table.from_pylist(rows, EVENTS), n_parts=2)
    # After the first step its weights are so large that nothing finite comes of them.
    section = {"learning_rate": 1e30, "epochs": 40, "warmup_steps": 0, "width": 4, "blocks": 1}
    with pytest.raises(LexrayError, match=r"^train autodecoder: the loss or gradient of d0.*is not finite; 3 steps"):
        train(table, tmp_path / "autodecoder", workers=1, model_type="splitnet", grid={}, splitnet=section)
    said = " ".join(capsys.readouterr().err.split())
    assert "left out 2 detections: events: detection d000 has no exposure; events: detection d001 has no good" in said


def test_keys_of_all_model_types_are_described_and_go_where_they_belong() -> None:
    keys = {"events": "events", "out": "out", "init": "none", "seed": 3, "precision": "bfloat16"}
    for model_type in SETTINGS_OF_TYPE:
        section = train_autodecoder.TrainAutodecoderConfig.model_fields[model_type].annotation
        assert section is not None
        assert all(said for key, _, _, said in describe(section)), model_type
        config = parse(
            train_autodecoder.TrainAutodecoderConfig,
            {**keys, "model_type": model_type, model_type: {"epochs": 7, "part_streams": 3}},
        )
        assert (
            replace(SETTINGS_OF_TYPE[model_type](), epochs=7, part_streams=3, seed=3, precision="bfloat16")
            == config.settings
        )
        assert (
            parse(
                train_autodecoder.TrainAutodecoderConfig, {**keys, "model_type": model_type, "patience": 2}
            ).settings.patience
            == 2
        )
        assert config.validated_on == MAX_VALIDATION[model_type]
        assert (
            parse(
                train_autodecoder.TrainAutodecoderConfig, {**keys, "model_type": model_type, "max_validation": 7}
            ).validated_on
            == 7
        )
    with pytest.raises(ConfigError, match=r"'grid.part_streams' \(1\) must be at least 'workers' \(2\)"):
        parse(
            train_autodecoder.TrainAutodecoderConfig,
            {**keys, "model_type": "grid", "grid": {"part_streams": 1}, "workers": 2},
        )
    with pytest.raises(ConfigError, match=r"'grid.n_knots'.*power of two, got 100"):
        parse(train_autodecoder.TrainAutodecoderConfig, {**keys, "model_type": "grid", "grid": {"n_knots": 100}})
    with pytest.raises(ConfigError, match=r"unknown key 'grid.latent_dims', did you mean 'latent_dim'"):
        parse(train_autodecoder.TrainAutodecoderConfig, {**keys, "grid": {"latent_dims": 1}})


def test_encode_and_rates_write_every_detection(trained: JobReport, events: str, tmp_path: Path) -> None:
    keys = {"events": events, "autodecoder": trained.out}
    config = parse(encode.EncodeConfig, {**keys, "out": str(tmp_path / "latents")})
    assert execute(encode.JOB, config, Progress()).counts == {"detections": 60, "flagged": 0, "left_out": 1}
    config_rates = parse(rates.RatesConfig, {**keys, "out": str(tmp_path / "rates"), "bins": 50})
    execute(rates.JOB, config_rates, Progress())

    rows = delta.read(events, order="detection_id").slice(0, 60)
    found = delta.read(str(tmp_path / "latents"), order="detection_id")
    assert found["detection_id"].to_pylist() == rows["detection_id"].to_pylist()
    model = load_autodecoder(trained.out)
    latents = dict(zip(found["detection_id"].to_pylist(), found["latent"].to_pylist(), strict=True))
    for part in delta.part_files(events):  # as the job does it: rounding differs with the size of a batch
        mine = from_table(rows.filter(pc.equal(rows["part"], part)))
        expected = model.encode(mine).latent
        np.testing.assert_allclose([latents[e.detection_id] for e in mine], expected, atol=5e-3)

    curves = delta.read(str(tmp_path / "rates")).to_pandas()
    assert len(curves) == 180
    one = curves[curves.detection_id == "d007"].set_index("band")
    _, rate = model.rate(stepping_source(7), bins=50)
    for band in range(3):
        np.testing.assert_allclose(one.rate[band], rate[band], rtol=0.05)
    assert execute(encode.JOB, config, Progress()).skipped


def test_a_table_without_training_sources_is_refused(ray_session: None, tmp_path: Path) -> None:
    empty = str(tmp_path / "events")
    delta.commit(empty, "events", EVENTS, [])
    with pytest.raises(LexrayError, match="no detection falls into the training split"):
        train(empty, tmp_path / "autodecoder")


def test_a_uri_is_refused_where_models_are_written(events: str) -> None:
    with pytest.raises(ConfigError, match=r"'out'.*it takes a local folder"):
        parse(train_autodecoder.TrainAutodecoderConfig, {"events": events, "out": "s3://bucket/autodecoder"})
