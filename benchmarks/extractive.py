"""Which of the facts that papers state the extractive engine's summaries keep, on simulated literature.

python benchmarks/extractive.py [--sources 2500] [--words 150 60] [--seed 2] [--out benchmarks/results/extractive.json]
python benchmarks/extractive.py --before FOLDER [--rounds 7] --out benchmarks/results/extractive_speed.json

Each sentence of a simulated abstract was made to tell one topic
(`simulation.papers.papers.simulate_papers_with_topics`). A fact, class, kind of variability or spectral shape, counts
as stated where a sentence of an abstract was made to tell it, and as kept where such a sentence stands in the
summary; `kept_with_titles` also takes titles that tell it. The engine's own vocabulary has no part in that. Beside
it: how often the labels that the engine recognises are the ones drawn, and how fast it, masking and grounding are.

``--before`` compares the engine's speed with that of another version, whose package lies in FOLDER: processor time of
counting the corpus and summarizing all sources on one core, in processes of their own, in turns. Both must give the
same rows.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import lexray
from lexray.simulation.papers.papers import SimulatedPaper, simulate_papers_with_topics
from lexray.simulation.source import SimulatedSource, simulate_source
from lexray.summaries.extractive import Corpus, ExtractiveSummarizer
from lexray.tables.schemas import LITERATURE, SUMMARIES
from lexray.text.grounding import ground
from lexray.text.labels import LabelCategory
from lexray.text.masking import NameMask

FACTS = {"nature": "class", "variability": "variability", "spectrum": "spectral shape"}
_CLASSES = {
    "AGN": "AGN", "YSO": "young star", "LM-STAR": "low-mass star", "HM-STAR": "high-mass star", "NS": "neutron star",
    "LMXB": "LMXB", "CV": "CV", "HMXB": "HMXB",
}  # fmt: skip
_KINDS = {
    "steady": "steady", "flare": "flaring", "dip": "dipping", "eclipse": "eclipsing", "periodic": "periodic",
    "red_noise": "irregular",
}  # fmt: skip


def sentences_by_fact(papers: list[SimulatedPaper]) -> dict[str, tuple[set[str], set[str]]]:
    """For each fact that abstracts state: their sentences that were made to tell it, and titles that do."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for told in papers:
        for topic, sentence in told.sentences:
            if topic in FACTS:
                found.setdefault(topic, (set(), set()))[0].add(sentence)
    for told in papers:
        for topic in told.in_title & found.keys():
            found[topic][1].add(told.paper["title"])
    return found


def measure(sources: list[tuple[SimulatedSource, list[SimulatedPaper]]], max_words: int) -> dict[str, Any]:
    """Shares of the facts kept and recognised, and the engine's speed."""
    rows = [[dict.fromkeys(LITERATURE.names) | told.paper for told in papers] for _, papers in sources]
    engine = ExtractiveSummarizer(Corpus.of(rows), max_words=max_words)
    n_stated, n_kept, n_with_titles, n_right, n_labelled = (Counter[str]() for _ in range(5))
    start = time.process_time()
    summaries = [engine.summarize(source.source_id, papers) for (source, _), papers in zip(sources, rows, strict=True)]
    seconds = time.process_time() - start
    words, grounded = [], []
    for (source, papers), summary in zip(sources, summaries, strict=True):
        facts = json.loads(summary["facts"])
        kept_sentences = {fact["text"] for fact in facts["sentences"]}
        told = sentences_by_fact(papers)
        for fact, (sentences, titles) in told.items():
            n_stated[fact] += 1
            n_kept[fact] += bool(sentences & kept_sentences)
            n_with_titles[fact] += bool((sentences | titles) & kept_sentences)
        for fact, kind, truth in (
            ("nature", "object_class", _CLASSES[source.source_class.name]),
            ("variability", "variability", _KINDS[source.variation.kind]),
        ):
            if fact in told:
                n_labelled[fact] += 1
                n_right[fact] += facts[kind] == truth
        words.append(len(summary["summary"].split()))
        grounded.append(summary["grounded"])
    checked = [share for share in grounded if share is not None]
    return {
        "kept": _rounded(sum(n_kept.values()) / sum(n_stated.values())),
        "kept_with_titles": _rounded(sum(n_with_titles.values()) / sum(n_stated.values())),
        "kept_by_fact": {name: _rounded(n_kept[fact] / n_stated[fact]) for fact, name in FACTS.items()},
        "stated": {name: n_stated[fact] for fact, name in FACTS.items()},
        "label_is_the_one_drawn": {FACTS[fact]: _rounded(n_right[fact] / n_labelled[fact]) for fact in n_labelled},
        "mean_words": _rounded(sum(words) / len(words)),
        "mean_grounded": _rounded(sum(checked) / max(len(checked), 1)),
        "summaries_a_second_on_one_core": _rounded(len(summaries) / seconds),
    }


def speed(sources: list[tuple[SimulatedSource, list[SimulatedPaper]]]) -> dict[str, Any]:
    """Processor time of hiding names in an abstract, and of grounding a summary in ten papers not seen before."""
    names = ["NGC 300 ULX1", "4XMM J005504.8-374143", "SN 2010da"]
    papers = [told.paper for _, told_of in sources for told in told_of]
    mask = NameMask.of(names)
    plain = [paper["abstract"] for paper in papers]
    named = [f"NGC300 ULX-1 lies in NGC 300. {text}" for text in plain]
    hidden = {name: _process_seconds(mask.mask, texts) for name, texts in (("plain", plain), ("named", named))}
    tens = [papers[i : i + 10] for i in range(0, len(papers) - 9, 10)]
    summary = (
        "The source is an HMXB with a period of 62 days, 4.7e39 erg/s and a power law of photon index 1.5. It flares."
    )
    labels: dict[LabelCategory, str] = {
        "object_class": "HMXB",
        "variability": "periodic",
        "spectral_shape": "power law",
    }
    listed = [("period", "62", "d", 0), ("luminosity", "4.7e39", "erg/s", 1)]
    grounding = _process_seconds(lambda ten: ground(summary, labels, listed, ten, names), tens)
    return {
        "characters_an_abstract": round(statistics.mean(map(len, plain))),
        "hide_us_an_abstract_without_names": _rounded(1e6 * hidden["plain"]),
        "hide_us_an_abstract_with_names": _rounded(1e6 * hidden["named"]),
        "ground_ms_in_ten_papers": _rounded(1e3 * grounding),
    }


def _process_seconds(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Median processor time of one item."""
    times = []
    for item in items:
        start = time.process_time()
        work(item)
        times.append(time.process_time() - start)
    return statistics.median(times)


def with_papers(n: int, seed: int) -> list[tuple[SimulatedSource, list[SimulatedPaper]]]:
    """The first `n` simulated sources of an archive that have papers."""
    found: list[tuple[SimulatedSource, list[SimulatedPaper]]] = []
    index = 0
    while len(found) < n:
        source = simulate_source(seed, index)
        papers = simulate_papers_with_topics(source, seed)
        if papers:
            found.append((source, papers))
        index += 1
    return found


def clock(sources: list[tuple[SimulatedSource, list[SimulatedPaper]]]) -> dict[str, Any]:
    """Processor time of the engine, its start included, and a hash of the rows with all their columns."""
    papers = [[dict.fromkeys(LITERATURE.names) | told.paper for told in papers] for _, papers in sources]
    start = time.process_time()
    engine = ExtractiveSummarizer(Corpus.of(papers))
    rows = [engine.summarize(of_source[0]["source_id"], of_source) for of_source in papers]
    seconds = time.process_time() - start
    table = pa.Table.from_pylist(rows, schema=SUMMARIES).sort_by("source_id")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return {"papers_a_second": sum(map(len, papers)) / seconds, "rows": hashlib.sha256(sink.getvalue()).hexdigest()}


def compare(before: str, rounds: int, n_sources: int, seed: int) -> dict[str, Any]:
    """Medians of both versions' speeds, and of their ratio in each round."""
    command = [sys.executable, __file__, "--clock", "--sources", str(n_sources), "--seed", str(seed)]
    found: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    for _ in range(rounds):
        for name, folder in (("before", before), ("now", str(Path(lexray.__file__).parents[1]))):
            environment = os.environ | {"PYTHONPATH": folder}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout))
    speeds = {name: [one["papers_a_second"] for one in of_name] for name, of_name in found.items()}
    ratios = [now / old for old, now in zip(speeds["before"], speeds["now"], strict=True)]
    return {
        "rounds": rounds,
        "papers_a_second": {name: _rounded(statistics.median(of_name)) for name, of_name in speeds.items()},
        "ratio": _rounded(statistics.median(ratios)),
        "ratios": [_rounded(ratio) for ratio in ratios],
        "same_rows": len({one["rows"] for of_name in found.values() for one in of_name}) == 1,
        "rows_sha256": found["now"][0]["rows"],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Facts that extractive summaries keep.")
    parser.add_argument("--sources", type=int, default=2500)
    parser.add_argument("--words", type=int, nargs="+", default=[150, 60])
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "extractive.json")
    parser.add_argument("--before", help="folder with another version's package, to compare speeds with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    sources = with_papers(arguments.sources, arguments.seed)
    if arguments.clock:
        print(json.dumps(clock(sources)))
        return
    result = {
        "benchmark": "extractive",
        "machine": {"cores": os.cpu_count(), "cpu": platform.processor() or platform.machine()},
        "sources": len(sources),
        "papers": sum(len(papers) for _, papers in sources),
        "seed": arguments.seed,
    }
    if arguments.before:
        result |= compare(arguments.before, arguments.rounds, arguments.sources, arguments.seed)
    else:
        result["speed"] = speed(sources)
        result["by_max_words"] = {str(words): measure(sources, words) for words in arguments.words}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
