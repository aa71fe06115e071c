"""Tokens a second through `lexray summarize` and `lexray embed` beside vLLM's own `LLM`, on the same prompts.

python benchmarks/summaries.py [--sources N] [--rounds N] [--out FILE]

``write``: a Llama of random weights writes answers to the schema for simulated sources; the job's rate is all tokens
between its first question and its last answer, vLLM's that of one `LLM.generate` with all prompts, structured decoding
and seeds as the job's. A prompt's tokens count as read in both. ``embed``: MiniLM on the summaries of the same sources,
against `LLM.embed`. Rounds run one after the other, the job and vLLM in turns; engines' starts are left out and said.
``overheads``: what a source costs beside the model, for the model of scaling in docs/summaries.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import ray
import ray.data
from reconstruction import machine

from lexray.jobs import embed, literature, simulate, summarize
from lexray.llm.chat_model import ChatTokenizer
from lexray.llm.sentence_encoder import TextEncoder, describe_text_model
from lexray.runtime import ray_session
from lexray.runtime.config import RayConfig
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.summaries.extractive import papers_by_source
from lexray.summaries.prompts import PromptTemplates
from lexray.summaries.schema import MAX_TOKENS, SCHEMA
from lexray.summaries.writer import PreviousRow, SummaryRequest, Writer, WriterSettings
from lexray.tables import delta
from lexray.text.grounding import Evidence, ground_in_evidence
from lexray.version import __version__
from tiny_llm import write_tiny_llm

#: Of the random model: 3 million parameters.
_HIDDEN, _LAYERS, _CONTEXT = 256, 4, 8192
_BATCH = 64


def prepare(folder: Path, n_sources: int) -> str:
    """A literature table of simulated papers."""
    archive = simulate.SimulateConfig(sources=n_sources, seed=1, out=str(folder / "archive"))
    execute(simulate.JOB, archive, Progress())
    papers = literature.LiteratureConfig(
        inputs=[str(folder / "archive" / "literature.jsonl")], out=str(folder / "literature")
    )
    return str(execute(literature.JOB, papers, Progress()).out)


def write_job(table: str, model: str, out: Path) -> dict[str, float]:
    """The job's figures; no second tries, so that both are asked the same."""
    config = summarize.SummarizeConfig(
        literature=table, engine="vllm", model=model, device="cpu", context=_CONTEXT, temperature=1.0,
        min_grounded=0.0, batch_size=_BATCH, out=str(out),
    )  # fmt: skip
    start = time.monotonic()
    report = execute(summarize.JOB, config, Progress())
    found = {name: report.metrics[name] for name in ("tokens_in", "tokens_out", "seconds", "tokens_per_s")}
    return found | {"rows": report.counts["summaries"], "start_and_end_s": time.monotonic() - start - found["seconds"]}


def prompts(table: str, model: str) -> list[list[int]]:
    """Token ids of all that the job asks."""
    writer = Writer(
        WriterSettings(min_grounded=0.0, temperature=1.0), dict.fromkeys(("engine", "model", "revision"), ""), _CONTEXT
    )
    tokens, templates = ChatTokenizer(model), PromptTemplates.read()
    sources, none = papers_by_source(delta.read(table)), PreviousRow()
    requests = [writer.prepare(source, "", papers, none, tokens.count) for source, papers in sources.items()]
    return [tokens.chat(templates.messages(templates.summary, text, 150)) for one in requests for text in one.prompts]


def vllm_direct(task: str, model: str, path: str) -> dict[str, float]:
    """vLLM's own figures; in a process of its own, whose last line they are."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    asked = json.loads(Path(path).read_text())
    start = time.monotonic()
    common = {"dtype": "float32", "enforce_eager": True, "disable_log_stats": True}
    if task == "embed":
        llm = LLM(
            model, runner="pooling", convert="embed", max_model_len=describe_text_model(model).max_length, **common
        )
    else:
        structured = {"backend": "guidance", "disable_any_whitespace": True}
        llm = LLM(
            model, max_model_len=_CONTEXT, structured_outputs_config=structured, enable_prefix_caching=True,
            enable_chunked_prefill=False, max_num_batched_tokens=_CONTEXT, **common,
        )  # fmt: skip
    started = time.monotonic()
    inputs = [{"prompt_token_ids": ids} for ids in asked]
    if task == "embed":
        llm.embed(inputs, use_tqdm=False)
        n_out = 0
    else:
        schema = StructuredOutputsParams(json=SCHEMA)
        params = [
            SamplingParams(temperature=1.0, max_tokens=MAX_TOKENS, seed=i, structured_outputs=schema)
            for i in range(len(asked))
        ]
        n_out = sum(len(answer.outputs[0].token_ids) for answer in llm.generate(inputs, params, use_tqdm=False))
    seconds = time.monotonic() - started
    n_in = sum(map(len, asked))
    return {
        "tokens_in": n_in, "tokens_out": n_out, "seconds": seconds, "tokens_per_s": (n_in + n_out) / seconds,
        "start_s": started - start,
    }  # fmt: skip


def vllm_in_subprocess(task: str, model: str, asked: list[list[int]], folder: Path) -> dict[str, float]:
    """`vllm_direct` in another process."""
    path = folder / f"{task}.json"
    path.write_text(json.dumps(asked))
    command = [sys.executable, __file__, "--direct", task, model, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def embed_job(table: str, out: Path) -> dict[str, float]:
    """The embedding job's figures."""
    config = embed.EmbedConfig(summaries=table, include_ungrounded=True, device="cpu", batch_size=_BATCH, out=str(out))
    start = time.monotonic()
    report = execute(embed.JOB, config, Progress())
    found = {name: report.metrics[name] for name in ("tokens_in", "seconds", "tokens_per_s")}
    return found | {"rows": report.counts["texts"], "start_and_end_s": time.monotonic() - start - found["seconds"]}


def texts_to_embed(table: str) -> list[list[int]]:
    """Token ids of the summaries."""
    encoder = TextEncoder(device="cpu")
    ids, _ = encoder._tokens([text for text in delta.read(table)["summary"].to_pylist() if text])
    return ids


def overheads(table: str, model: str) -> dict[str, float]:
    """Milliseconds a source takes, beside the model: where it is prepared, where it is checked, and on the driver."""
    writer = Writer(WriterSettings(), dict.fromkeys(("engine", "model", "revision"), ""), _CONTEXT)
    tokens, sources = ChatTokenizer(model), papers_by_source(delta.read(table))

    def clock(work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    works: list[SummaryRequest] = []
    none = PreviousRow()
    prepare = clock(
        lambda: works.extend(writer.prepare(s, "", papers, none, tokens.count) for s, papers in sources.items())
    )
    said = "The source is a young star with a plasma temperature of 1.2 keV; it flares, its luminosity is 3e30 erg/s."
    labels = {"object_class": "young star", "variability": "flaring", "spectral_shape": "thermal plasma"}
    check = clock(
        lambda: [ground_in_evidence([Evidence(tuple(s)) for s in w.evidence], [said], labels, []) for w in works]
    )
    keys = clock(lambda: [writer.key(source, papers) for source, papers in sources.items()])
    with ray_session.session(RayConfig()):
        rows = [{"work": work.dumps()} for work in works] * (5000 // len(works))
        driver = clock(lambda: list(ray.data.from_items(rows).map(lambda _: {"began": 1.0}).iter_rows()))
    n = len(works)
    found = {"prepare": prepare / n, "check": check / n, "key": keys / n, "driver": driver / len(rows)}
    return {f"{name}_ms": round(1000 * seconds, 3) for name, seconds in found.items()}


def ratios(rounds: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds, and the job's rate over vLLM's of the same round."""
    ours, theirs = zip(*rounds, strict=True)

    def medians(found: tuple[dict[str, float], ...]) -> dict[str, float]:
        return {name: round(statistics.median(one[name] for one in found), 2) for name in found[0]}

    shares = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in rounds]
    return {
        "share": round(statistics.median(shares), 3),
        "shares": [round(share, 3) for share in shares],
        "job": medians(ours),
        "vllm": medians(theirs),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=40, help="sources to write on")
    parser.add_argument("--texts", type=int, default=600, help="sources whose extractive summaries are embedded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default="benchmarks/results/summaries.json")
    parser.add_argument("--direct", nargs=3, metavar=("TASK", "MODEL", "PROMPTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.direct:
        print(json.dumps(vllm_direct(*arguments.direct)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        table = prepare(folder / "some", arguments.sources)
        model = write_tiny_llm(folder / "model", _HIDDEN, _LAYERS, _CONTEXT)
        asked = prompts(table, model)
        write = [
            (write_job(table, model, folder / f"written{i}"), vllm_in_subprocess("generate", model, asked, folder))
            for i in range(arguments.rounds)
        ]
        summaries = str(
            execute(
                summarize.JOB,
                summarize.SummarizeConfig(literature=prepare(folder / "many", arguments.texts), out=str(folder / "s")),
                Progress(),
            ).out
        )
        overheads_found = overheads(table, model)
        ids, minilm = texts_to_embed(summaries), describe_text_model().path
        embedded = [
            (embed_job(summaries, folder / f"embedded{i}"), vllm_in_subprocess("embed", minilm, ids, folder))
            for i in range(arguments.rounds)
        ]
    found = {
        "version": __version__,
        "machine": machine(),
        "sources": arguments.sources,
        "prompts": len(asked),
        "texts": len(ids),
        "write": ratios(write),
        "overheads": overheads_found,
        "embed": ratios(embedded),
    }
    print(json.dumps(found, indent=1))
    Path(arguments.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
