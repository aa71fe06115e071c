"""`lexray train reference`, and trainings that begin with the network of another."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexray.errors import LexrayError
from lexray.events.arrow import to_table
from lexray.inference.autodecoder import DESCRIPTION, REFERENCE, WEIGHTS, load_autodecoder
from lexray.jobs import train_autodecoder, train_reference
from lexray.jobs.train_autodecoder import TrainAutodecoderConfig
from lexray.models.autodecoders.sampler import PartSize
from lexray.models.autodecoders.splitnet.known_rates import KnownRateSettings
from lexray.runtime.config import parse
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.simulation.population import SimulatedPopulation
from lexray.tables import delta
from lexray.tables.files import sha256_of
from lexray.tables.schemas import EVENTS
from lexray.training.autodecoder_config import FINE_TUNING
from lexray.training.streamed_parts import StreamedParts


@pytest.fixture(scope="module")
def trained(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> JobReport:
    """A very small training."""
    out = tmp_path_factory.mktemp("reference") / "autodecoder"
    keys = {"out": str(out), "detections": 1000, "width": 4, "checkpoints": 2}
    config = parse(train_reference.TrainReferenceConfig, keys)
    return execute(train_reference.JOB, config, Progress())


@pytest.mark.ray
def test_it_writes_an_autodecoder_its_card_and_how_it_was_trained(
    trained: JobReport, population: SimulatedPopulation
) -> None:
    folder = Path(trained.out)
    model = load_autodecoder(folder)
    assert model.calibration is not None
    ((_, rate),) = model.rates(population.select([0]).event_lists())
    assert np.isfinite(rate).all()
    record = json.loads((folder / "training.json").read_text())
    assert record["sha256"] == sha256_of(folder / WEIGHTS)
    assert record["configuration"]["width"] == 4
    steps = [step for step, _ in record["curve"]["loss"]]
    assert len(steps) == 2
    assert steps[-1] == pytest.approx(trained.counts["detections"] / KnownRateSettings.batch_size, abs=1)
    card = (folder / "README.md").read_text()
    assert record["sha256"] in card
    assert f"{trained.counts['detections']:,} simulated" in card
    assert not Path(f"{trained.out}.checkpoints").exists()


@pytest.mark.ray
def test_a_stream_gives_each_part_once_and_goes_on_where_it_was(
    ray_session: None, population: SimulatedPopulation
) -> None:
    """Also over the windows in which parts are drawn; and what goes wrong in drawing one is said."""

    def draw(part: int) -> torch.Tensor:
        if part == 1000:
            raise ValueError("no such part")
        return torch.full((1,), part)

    def stream(parts: int) -> StreamedParts:
        return StreamedParts(parts, lambda part: PartSize(1, 1), draw, population.photons)

    small = stream(60)
    settings = KnownRateSettings(part_streams=2)
    workers = [small.of_worker(rank, 2, settings) for rank in (0, 1)]
    assert sorted([*workers[0].sizes, *workers[1].sizes]) == list(range(60))
    assert len(workers[0].validation()[0]) == len(population)
    assert workers[1].validation() == {}
    order = list(workers[0].sizes)
    assert [int(workers[0].read(part)[0]) for part in order] == order
    again = small.of_worker(0, 2, settings)
    assert [int(again.read(part)[0]) for part in order[20:]] == order[20:]
    skipping = small.of_worker(0, 2, settings)
    skipping.read(order[3])
    with pytest.raises(RuntimeError, match=f"part {order[5]} was asked for, part {order[4]} is the next one"):
        skipping.read(order[5])
    failing = stream(1001).of_worker(0, 1, KnownRateSettings(part_streams=1))
    with pytest.raises(Exception, match="no such part"):
        failing.read(1000)
    with pytest.raises(ValueError, match="2 workers take 2 streams of parts, not 8"):
        small.of_worker(0, 2, KnownRateSettings())


def test_the_reference_comes_with_lexray(population: SimulatedPopulation) -> None:
    model = load_autodecoder(REFERENCE)
    assert model.calibration is not None
    folder = Path(load_autodecoder.__code__.co_filename).parents[1] / "models" / "autodecoders" / "reference"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
    record = json.loads((folder / "training.json").read_text())
    assert record["sha256"] == sha256_of(folder / WEIGHTS)
    assert (folder / DESCRIPTION).exists()


@pytest.mark.ray
def test_a_training_begins_with_the_network_that_is_named(
    trained: JobReport, population: SimulatedPopulation, tmp_path: Path
) -> None:
    """Without a single step of its own it ends with what it began with."""
    events = str(tmp_path / "events")
    delta.write(events, "events", EVENTS, to_table(population.select(range(60)).event_lists()), n_parts=2)
    keys = {"events": events, "init": trained.out, "workers": 1, "splitnet": {"width": 4, "learning_rate": 0.0}}
    config = parse(TrainAutodecoderConfig, {**keys, "out": str(tmp_path / "tuned")})
    assert config.init_mismatch is None
    assert config.settings.epochs == FINE_TUNING["epochs"]
    assert config.settings.learning_rate == 0.0  # what is given goes before what is usual
    report = execute(train_autodecoder.JOB, config, Progress())
    before, after = (load_autodecoder(folder).network.state_dict() for folder in (trained.out, report.out))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=name)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"init": "none"}, "'init' is 'none'"),
        (
            {"model_type": "grid"},
            "reference is a splitnet (n_bands 3, width {width}, blocks 2, spectral_features 32)",
        ),
        ({"splitnet": {"width": 4}}, "this a splitnet (n_bands 3, width 4, blocks 2, spectral_features 32)"),
        ({"splitnet": {"n_bands": 2}}, "this a splitnet (n_bands 2,"),
    ],
)
def test_what_does_not_fit_begins_with_none_and_why_is_said(tmp_path: Path, keys: dict[str, Any], why: str) -> None:
    config = parse(TrainAutodecoderConfig, {"events": "none", "out": str(tmp_path / "out"), **keys})
    reference = load_autodecoder(REFERENCE)
    assert config.init_mismatch is not None
    assert why.format(width=reference.settings.sizes["width"]) in config.init_mismatch
    assert config.settings.epochs > FINE_TUNING["epochs"]


@pytest.mark.ray
def test_one_that_was_asked_for_and_does_not_fit_is_refused(
    trained: JobReport, population: SimulatedPopulation, tmp_path: Path
) -> None:
    events = str(tmp_path / "events")
    delta.write(events, "events", EVENTS, to_table(population.select(range(4)).event_lists()))
    config = parse(TrainAutodecoderConfig, {"events": events, "init": trained.out, "out": str(tmp_path / "out")})
    with pytest.raises(
        LexrayError, match=r"init: .* is a splitnet \(n_bands 3, width 4.*give the same sizes, or init=none"
    ):
        execute(train_autodecoder.JOB, config, Progress())


def test_an_autodecoder_to_begin_with_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = parse(TrainAutodecoderConfig, {"events": "none", "out": "out", "init": str(tmp_path / "absent")})
    with pytest.raises(LexrayError, match="absent: no autodecoder here"):
        _ = config.settings
