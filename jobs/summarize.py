"""`lexray summarize`: papers → a summary of each source, part by part on Ray Data."""

from collections import Counter
from functools import partial, reduce
from operator import add
from typing import Any, Literal

import pyarrow as pa
import ray
from pydantic import Field

from lexray import cluster, storage
from lexray.config import JobConfig
from lexray.job import Context, Job, Outcome
from lexray.partwise import PartFunction, map_parts
from lexray.schemas import SUMMARIES
from lexray.summaries.extractive import Corpus, Extractive, by_source, summarize_part


class Config(JobConfig):
    """Configuration of `lexray summarize`."""

    literature: str = Field(description="literature table")
    engine: Literal["extractive"] = Field("extractive", description="'extractive': the most informative sentences")
    max_words: int = Field(150, ge=10, description="length of a summary")
    mask_names: bool = Field(True, description="write 'the source' for a source's name in what is embedded")
    workers: int = Field(2, ge=1, description="worker processes, each with one CPU")


def run(config: Config, context: Context) -> Outcome:
    """Count the corpus' terms, then summarize each source's papers."""
    parts = list(storage.part_files(config.literature))
    with cluster.session(config.ray):
        corpus = _corpus(config.literature, parts)
        with context.progress.task("sources", total=corpus.n_sources) as task:
            make = partial(_engine, ray.put(corpus), config.max_words, config.mask_names)
            fragments = map_parts(config.literature, config.out, SUMMARIES, make, task, config.workers)
    storage.commit(config.out, "summaries", SUMMARIES, fragments)
    written = storage.read(config.out, ["status", "reason", "grounded", "n_papers", "summary"])
    reasons = Counter(written["reason"].drop_null().to_pylist())
    failed = sum(reasons.values())
    summaries = [text for text in written["summary"].to_pylist() if text]
    grounded = [share for share in written["grounded"].to_pylist() if share is not None]
    metrics = {
        "mean_words": sum(len(text.split()) for text in summaries) / max(len(summaries), 1),
        "mean_grounded": sum(grounded) / max(len(grounded), 1),
    }
    return Outcome(
        counts={
            "sources": written.num_rows,
            "papers": sum(written["n_papers"].to_pylist()),
            "summaries": len(summaries),
            "failed": failed,
            "failed_by_reason": dict(reasons),
        },
        metrics=metrics,
        refused=failed,
        taken=len(summaries),
    )


def _corpus(literature: str, parts: list[int]) -> Corpus:
    """Terms of all sources' papers, counted part by part and added up on the driver."""

    def count(row: dict[str, Any]) -> dict[str, Any]:
        rows = storage.read(literature, ["source_id", "title", "abstract", "body"], parts=[row["part"]])
        corpus = Corpus.of(by_source(rows).values())
        return {
            "n_sources": corpus.n_sources,
            "terms": list(corpus.frequency),
            "counts": list(corpus.frequency.values()),
        }

    if not parts:
        return Corpus()
    counted = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map(count)
    return reduce(
        add,
        (
            Corpus(row["n_sources"], Counter(dict(zip(row["terms"], row["counts"], strict=True))))
            for row in counted.iter_rows()
        ),
    )


def _engine(corpus: "ray.ObjectRef[Corpus]", max_words: int, mask_names: bool) -> PartFunction:
    engine = Extractive(ray.get(corpus), max_words, mask_names)

    def summarize(_: int, rows: pa.Table) -> pa.Table:
        return summarize_part(rows, engine)

    return summarize


JOB = Job(
    name="summarize",
    config=Config,
    run=run,
    inputs=("literature",),
    positional=("literature",),
    summary="Write a summary of each source from its papers.",
)
