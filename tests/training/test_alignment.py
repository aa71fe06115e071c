"""`train alignment` and `project`: what they learn, what they refuse, and what a killed worker costs."""

import functools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from aligned_tables import LATENT_DIM, N_BANDS, TEXT_DIM, Tables, write_tables, write_texts
from lexray.errors import ConfigError, LexrayError
from lexray.jobs import project, train_alignment
from lexray.models.alignment.evaluation import own_rank
from lexray.models.alignment.pairs import Pairs
from lexray.models.alignment.towers import Sizes, Towers
from lexray.models.alignment.trainer import AlignmentSettings, AlignmentTrainer
from lexray.runtime.config import parse
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.training.alignment import AlignmentTraining
from lexray.training.pairs import PairedTables, read_pairs
from lexray.training.splits import read_splits

N_SOURCES = 500
SETTINGS = AlignmentSettings(epochs=60)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return write_tables(tmp_path_factory.mktemp("tables"), N_SOURCES)


@pytest.fixture(scope="module")
def pairs(tables: Tables) -> PairedTables:
    return read_pairs(**tables.keys())


def trained(pairs: PairedTables, settings: AlignmentSettings = SETTINGS) -> AlignmentTrainer:
    trainer = AlignmentTrainer(settings, pairs.train, pairs.val, pairs.n_bands)
    while not trainer.finished:
        trainer.run_epoch()
    return trainer


def test_pairs_are_of_the_split_and_have_both_sides(tables: Tables, pairs: PairedTables) -> None:
    splits = read_splits(tables.events)
    both = {s for s in splits if s != f"source {N_SOURCES - 2}"}  # that one has no text
    for name in ("train", "val"):
        found: Pairs = getattr(pairs, name)
        assert abs(len(found) - sum(splits[s] == name for s in both)) <= 1  # the last may have had one detection only
        assert int(found.offsets[-1]) == len(found.xray)
        assert (found.offsets.diff() >= 1).all()
    assert [refusal.reason for refusal in pairs.refusals] == ["not_finite"]
    assert pairs.n_rows > len(pairs.train.xray) + len(pairs.val.xray)
    assert pairs.made_with == {"autodecoder": "grid-1", "text_model": "words-1"}
    assert pairs.train.xray.shape[1] == LATENT_DIM + N_BANDS


def test_an_epoch_shows_each_source_once_and_all_its_detections_in_time(pairs: PairedTables) -> None:
    generator = torch.Generator().manual_seed(0)
    sources = torch.randperm(len(pairs.train), generator=generator)
    shown = set()
    for _ in range(40):
        rows = pairs.train.draw(sources, generator)
        owner = torch.bucketize(rows, pairs.train.offsets, right=True) - 1
        assert torch.equal(owner, sources)  # no two rows of a batch are of one source
        shown |= set(rows.tolist())
    assert shown == set(range(len(pairs.train.xray)))


def test_same_seed_same_towers_another_seed_others(pairs: PairedTables) -> None:
    short = replace(SETTINGS, epochs=4)
    first, again, other = (trained(pairs, replace(short, seed=seed)).history for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_training_ends_when_validation_stops_improving(pairs: PairedTables) -> None:
    noise = replace(pairs.val, text=pairs.val.text[torch.randperm(len(pairs.val))])
    trainer = trained(replace(pairs, val=noise), replace(SETTINGS, patience=3))
    assert trainer.epoch == trainer.best_epoch + 3 < SETTINGS.epochs


def test_shuffled_pairs_teach_nothing(pairs: PairedTables) -> None:
    """The control: the same training on texts of other sources retrieves no better than chance."""
    order = torch.randperm(len(pairs.train), generator=torch.Generator().manual_seed(1))
    wrong = replace(pairs.train, text=pairs.train.text[order])
    chance = 10 / len(pairs.val)
    right, shuffled = (trained(replace(pairs, train=train)) for train in (pairs.train, wrong))
    recall = [trainer.history[trainer.best_epoch - 1]["val/recall@10"] for trainer in (right, shuffled)]
    assert recall[0] > 5 * chance
    assert recall[1] < 2 * chance


def test_towers_come_back_from_their_folder(tmp_path: Path) -> None:
    sizes = Sizes(latent_dim=4, n_bands=3, text_dim=9, text_components=5, hidden=8, dimension=6, members=2)
    towers = Towers(sizes, 0.1, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    towers.text.standardise.fit_whitening(torch.tensor(rng.normal(size=(20, 9)), dtype=torch.float32), 1.0)
    towers.save(tmp_path / "a", {"text_model": "words-1"})
    back = Towers.load(tmp_path / "a")
    latent, log_rate, text = (rng.normal(size=(7, n)).astype("f4") for n in (4, 3, 9))
    xray = back.embed_xray(latent, log_rate)
    np.testing.assert_array_equal(xray, towers.embed_xray(latent, log_rate))
    np.testing.assert_array_equal(back.embed_text(text), towers.embed_text(text))
    np.testing.assert_allclose(np.linalg.norm(xray, axis=1), 1, rtol=1e-5)
    assert xray.shape == (7, 6)
    assert xray.dtype == np.float32
    assert back.embed_text(text[:0]).shape == (0, 6)
    assert back.made_with == {"text_model": "words-1"}
    with pytest.raises(ValueError, match=r"\[N, 9\]"):
        back.embed_text(text[:, :5])


def test_checkpoints_of_another_training_are_named_and_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"out": str(tmp_path / "model"), "latents": "-", "text_embeddings": "-", "events": "-"}
    training = parse(train_alignment.TrainAlignmentConfig, values).training
    training._warn_of_others(Progress())
    assert capsys.readouterr().err == ""
    (tmp_path / "model.checkpoints" / training.name).mkdir(parents=True)  # as the version before named its own
    training._warn_of_others(Progress())
    said = " ".join(capsys.readouterr().err.split())
    assert "model.checkpoints holds checkpoints of other data" in said
    assert "the training starts from the beginning" in said


def evened(pairs: PairedTables) -> PairedTables:
    """With an even number of sources, so that two workers share them without a rest."""
    n = len(pairs.train) // 2 * 2
    offsets = pairs.train.offsets[: n + 1]
    return replace(pairs, train=Pairs(pairs.train.xray[: offsets[-1]], offsets, pairs.train.text[:n]))


@pytest.fixture(scope="module")
def aligned(
    tables: Tables, ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[train_alignment.TrainAlignmentConfig, JobReport]:
    """A job with two workers, of which the first is killed once, after its eighth epoch."""
    folder = tmp_path_factory.mktemp("aligned")
    marker = folder / "killed"

    def kill_once(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 8 and not marker.exists():
            marker.touch()
            os._exit(1)

    # Without dropout and noise, which each worker draws for itself, the result must be that of a single process.
    values = {**tables.keys(), "out": str(folder / "alignment"), "epochs": 9, "checkpoint_every": 3, "workers": 2}
    values |= {"dropout": 0.0, "input_dropout": 0.0, "noise": 0.0, "max_failures": 1}
    config = parse(train_alignment.TrainAlignmentConfig, values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_alignment, "read_pairs", lambda *tables: evened(read_pairs(*tables)))
        patch.setattr(AlignmentTraining, "fit", functools.partialmethod(AlignmentTraining.fit, on_epoch=kill_once))
        report = execute(train_alignment.JOB, config, Progress())
    assert marker.exists()
    return config, report


@pytest.mark.ray
def test_two_workers_of_which_one_is_killed_end_as_one_does(
    aligned: tuple[train_alignment.TrainAlignmentConfig, JobReport], pairs: PairedTables
) -> None:
    config, report = aligned
    alone = trained(evened(pairs), config.settings)
    assert report.counts["epochs"] == 9
    client = MlflowClient()
    for name in alone.history[0]:
        logged = client.get_metric_history(report.mlflow_run, name.replace("@", "_at_"))
        assert [point.step for point in logged] == list(range(1, 10))
        assert [point.value for point in logged] == pytest.approx([row[name] for row in alone.history], rel=1e-3)
    assert not Path(f"{config.out}.checkpoints").exists()


@pytest.mark.ray
def test_towers_retrieve_sources_that_no_training_saw(
    aligned: tuple[train_alignment.TrainAlignmentConfig, JobReport], tables: Tables, tmp_path: Path
) -> None:
    alignment, embeddings = aligned[0].out, str(tmp_path / "embeddings")
    report = aligned[1]
    (refused,) = delta.read(report.refusals)["detail"].to_pylist()
    assert refused.endswith(": its vector is missing or holds numbers that are not finite")
    assert report.metrics["best/val/recall@10"] > 5 * report.metrics["chance/val/recall@10"]
    assert {"alignment.json", "alignment.safetensors"} <= {path.name for path in Path(alignment).iterdir()}

    values = {"alignment": alignment, "latents": tables.latents, "text_embeddings": tables.text_embeddings}
    report = execute(project.JOB, parse(project.ProjectConfig, {**values, "out": embeddings}), Progress())
    n_detections = delta.dataset(tables.latents).count_rows()
    assert report.counts == {"detections": n_detections - 1, "texts": N_SOURCES - 1, "refused": 1}
    quarantine = delta.read(f"{embeddings}.quarantine").to_pylist()
    assert [row["reason"] for row in quarantine] == ["not_finite"]
    assert f"detection {n_detections - 1}:" in quarantine[0]["detail"]

    rows = delta.read(embeddings).to_pylist()
    np.testing.assert_allclose([np.linalg.norm(row["embedding"]) for row in rows], 1, rtol=1e-5)
    splits = read_splits(tables.events)
    vectors = {(row["modality"], row["source_id"]): row["embedding"] for row in rows}  # one detection a source
    tested = [s for s in splits if splits[s] == "test" and {("xray", s), ("text", s)} <= vectors.keys()]
    xray, text = (torch.tensor([vectors[kind, s] for s in tested]) for kind in ("xray", "text"))
    for similarity in (xray @ text.T, text @ xray.T):
        assert float((own_rank(similarity) <= 10).double().mean()) > 5 * 10 / len(tested)


def test_tables_unlike_the_training_s_are_refused(tmp_path: Path, tables: Tables, pairs: PairedTables) -> None:
    alignment = str(tmp_path / "alignment")
    trained(pairs, replace(SETTINGS, epochs=1)).best_towers().save(alignment, pairs.made_with)
    short, foreign = str(tmp_path / "short"), str(tmp_path / "foreign")
    write_texts(short, ["a"], np.ones((1, 7)))
    write_texts(foreign, ["a"], np.ones((1, TEXT_DIM)), model="words-2")
    for table, message in ((short, "7 numbers per row.* trained on 64"), (foreign, "by words-2.* by words-1")):
        config = parse(
            project.ProjectConfig, {"alignment": alignment, "text_embeddings": table, "out": str(tmp_path / "e")}
        )
        with pytest.raises(LexrayError, match=message):
            execute(project.JOB, config, Progress())
    config = parse(project.ProjectConfig, {"alignment": short, "latents": tables.latents, "out": str(tmp_path / "e")})
    with pytest.raises(LexrayError, match="no alignment here"):
        execute(project.JOB, config, Progress())


def test_too_few_sources_are_refused(tmp_path: Path) -> None:
    few = write_tables(tmp_path, 12)
    with pytest.raises(LexrayError, match="at least 16 are needed"):
        read_pairs(**few.keys())


@pytest.mark.parametrize(
    ("job", "values", "message"),
    [
        (train_alignment, {"members": 3}, "'dimension' .64. must be a multiple of 'members' .3."),
        (train_alignment, {"dropuot": 0.1}, "did you mean 'dropout'"),
        (project, {"alignment": "a"}, "at least one of 'latents' and 'text_embeddings'"),
    ],
)
def test_wrong_configuration_is_refused(job: object, values: dict[str, object], message: str, tables: Tables) -> None:
    given = {**(tables.keys() if job is train_alignment else {}), "out": "x", **values}
    with pytest.raises(ConfigError, match=message):
        parse(job.JOB.config, given)  # type: ignore[attr-defined]
