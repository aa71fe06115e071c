"""Releases: built by `index`, verified when opened, never changed; and what they find."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray import load_aligned
from lexray.errors import LexrayError
from lexray.models.alignment.towers import Towers
from lexray.release.index import SearchIndex, schema
from lexray.release.manifest import MANIFEST_FILE, Release, ReleaseManifest, seal
from tiny_release import CLASSES, N_SOURCES, ReleaseInputs, class_of, source


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    """A release that a test may spoil."""
    return Path(shutil.copytree(release, tmp_path / "release"))


def test_a_release_says_what_it_is_made_of(release: Path) -> None:
    manifest = Release.open(release).manifest
    assert manifest.counts == {"sources": N_SOURCES, "vectors": N_SOURCES + 48, "xray": N_SOURCES, "text": 48}
    assert set(manifest.inputs) == {"autodecoder", "alignment", "embeddings", "summaries", "labels", "events"}
    assert manifest.text_model.sha256.startswith("53aa51172d14")
    assert manifest.dimension == 16
    assert {name.split("/")[0] for name in manifest.files} == {"autodecoder", "alignment", "heads", "index"}


def test_a_release_holds_nothing_that_must_be_unpickled(release: Path) -> None:
    models = {path.suffix for name in ("autodecoder", "alignment", "heads") for path in (release / name).iterdir()}
    assert models == {".safetensors", ".json"}


@pytest.mark.parametrize(
    "which", ["autodecoder/*.safetensors", "alignment/*.json", "heads/*.safetensors", "index/**/*.lance"]
)
def test_a_changed_byte_is_found_and_its_file_named(copy: Path, which: str) -> None:
    path = next(found for found in copy.glob(which) if found.is_file())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(LexrayError, match=f"{path.name}: changed"):
        Release.open(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "alignment" / "alignment.json").unlink()
    with pytest.raises(LexrayError, match=r"alignment.json: this file of release \w+ is missing"):
        Release.open(copy)


def test_a_file_that_nobody_sealed_is_refused(copy: Path) -> None:
    (copy / "index" / "more.lance").write_text("")
    with pytest.raises(LexrayError, match=r"more.lance: this file is not part of release"):
        Release.open(copy)


def test_a_changed_manifest_no_longer_answers_to_its_name(copy: Path) -> None:
    path = copy / MANIFEST_FILE
    path.write_text(path.read_text().replace('"split_seed": 0', '"split_seed": 1'))
    with pytest.raises(LexrayError, match=r"manifest.json: changed"):
        Release.open(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no release here"),
        ("[1]", "not a release's manifest"),
        ('{"format": 99}', "format 99, this Lexray reads up to 1"),
    ],
)
def test_what_is_no_release_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST_FILE).write_text(content)
    with pytest.raises(LexrayError, match=message):
        Release.open(tmp_path)


def test_a_release_with_another_text_model_does_not_embed(copy: Path) -> None:
    said = json.loads((copy / MANIFEST_FILE).read_text())
    said["text_model"]["sha256"] = "0" * 64
    seal(copy, ReleaseManifest.model_validate(said))
    with pytest.raises(LexrayError, match=r"has weights of sha256 000000000000…, the one installed here 53aa51172d14"):
        load_aligned(copy).embed_text(["a star"])


def test_the_same_inputs_keep_the_release(release_inputs: ReleaseInputs, release: Path) -> None:
    before = Release.open(release).id
    assert release_inputs.build().skipped
    assert Release.open(release).id == before


def test_other_inputs_do_not_replace_a_release_unless_forced(release_inputs: ReleaseInputs, copy: Path) -> None:
    before = Release.open(copy).id
    with pytest.raises(LexrayError, match=f"holds release {before}, made of other inputs, and a release never changes"):
        release_inputs.build(out=str(copy), split_seed=1)
    assert Release.open(copy).id == before
    release_inputs.build(out=str(copy), split_seed=1, force=True)
    assert Release.open(copy).id != before
    assert [path.name for path in copy.parent.iterdir()] == ["release"]


def test_a_folder_that_is_no_release_is_never_overwritten(release_inputs: ReleaseInputs, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(LexrayError, match="no release here"):
        release_inputs.build(out=str(tmp_path), force=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_alignment_of_another_text_model_makes_no_release(release_inputs: ReleaseInputs, tmp_path: Path) -> None:
    Towers.load(release_inputs.folder / "alignment").save(tmp_path / "alignment", {"text_model": "another"})
    with pytest.raises(LexrayError, match="was trained with another, not all-MiniLM-L6-v2"):
        release_inputs.build(alignment=str(tmp_path / "alignment"), out=str(tmp_path / "release"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alignment"]


def test_a_release_needs_neither_labels_nor_summaries_nor_events(release_inputs: ReleaseInputs, tmp_path: Path) -> None:
    release_inputs.build(out=str(tmp_path / "release"), labels=None, summaries=None, events=None)
    aligned = load_aligned(tmp_path / "release")
    assert aligned.predict(aligned.embed_events([source(0)])) == {}
    assert aligned.search("a star", 3)[0].known["summary"] is None


def test_encoders_put_events_and_sentences_on_one_sphere(release: Path) -> None:
    aligned = load_aligned(release)
    events, text = aligned.embed_events([source(i) for i in range(5)]), aligned.embed_text(["a star", "a galaxy"])
    assert events.shape == (5, 16)
    assert text.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([events, text]), axis=1), 1.0, rtol=1e-5)
    assert aligned.embed_text([]).shape == (0, 16)


def test_an_observation_finds_itself_with_all_that_is_known(release: Path) -> None:
    hit = load_aligned(release).search(source(3), k=4)[0]
    assert hit.source_id == "S3"
    assert hit.score == pytest.approx(1.0, abs=1e-5)
    assert set(hit.scores) == {"xray", "text"}
    assert hit.known["class"] == class_of(3)
    assert hit.known["summary"].startswith(CLASSES[class_of(3)])
    assert hit.known["n_events"] == len(source(3))
    assert hit.known["labels"]["hardness"] == pytest.approx(source(3).hardness_ratio(0, 2))


def test_search_on_the_command_line(release: Path, cli) -> None:  # type: ignore[no-untyped-def]
    summary = f"{CLASSES['CV']}, number 3."
    found = cli.json("search", release, summary, "-k", "2", "--modality", "text")["sources"]
    assert found[0]["source_id"] == "S3"
    assert len(found) == 2


def _rows(vectors: np.ndarray, owners: list[str], modalities: list[str]) -> pa.Table:
    rows = [
        {"id": f"{i}", "source_id": owner, "modality": modality, "embedding": vector}
        for i, (vector, owner, modality) in enumerate(zip(vectors, owners, modalities, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=schema(vectors.shape[1]))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    k=st.integers(1, 70),
    modality=st.sampled_from(["xray", "text", None]),
)
def test_sources_come_in_the_order_of_their_best_cosine(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, k: int, modality: str | None
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    # Names as people write them, and few of them, so that sources own several vectors.
    owners = [f'N\'{i} "x"' for i in rng.integers(0, max(1, n // 4), n)]
    modalities = [str(m) for m in rng.choice(["xray", "text"], n)]
    query = rng.normal(size=8)
    index = SearchIndex.build(tmp_path_factory.mktemp("index"), _rows(vectors, owners, modalities))
    found = index.search(query, k, modality)

    cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    best: dict[str, float] = {}
    for owner, kind, value in zip(owners, modalities, cosine, strict=True):
        if modality in (None, kind):
            best[owner] = max(best.get(owner, -2.0), float(value))
    expected = sorted(best.values(), reverse=True)[:k]
    np.testing.assert_allclose([hit.score for hit in found], expected, atol=1e-5)
    np.testing.assert_allclose([best[hit.source_id] for hit in found], expected, atol=1e-5)
    np.testing.assert_allclose([max(hit.scores.values()) for hit in found], expected, atol=1e-5)


def test_an_approximate_index_finds_the_same_nearest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2000, 16)).astype(np.float32)
    rows = _rows(vectors, [f"S{i}" for i in range(2000)], ["xray"] * 2000)
    exact = SearchIndex.build(tmp_path / "exact", rows)
    approximate = SearchIndex.build(tmp_path / "ann", rows, ann_rows=1000)
    queries = rng.normal(size=(20, 16))
    same = [exact.search(q, 1)[0].source_id == approximate.search(q, 1)[0].source_id for q in queries]
    assert np.mean(same) >= 0.9


@pytest.mark.parametrize(
    ("vector", "message"),
    [([1.0, 2.0], "have 16 numbers, got 2"), ([0.0] * 16, "not zero"), ([np.nan] * 16, "finite")],
)
def test_vectors_that_cannot_be_searched_for_are_refused(release: Path, vector: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchIndex.open(release / "index").search(vector)
