"""A run of `lexray embed`: find the texts without a vector, embed them, commit the table, and say what was done."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from lexray.embeddings.engines import EmbeddingEngine
from lexray.embeddings.store import BatchResult, Provenance, TextColumn
from lexray.llm.cost import cost_per_1000
from lexray.runtime.progress import Progress
from lexray.runtime.tracking import MlflowRun
from lexray.tables import delta
from lexray.tables.quarantine import Refusal
from lexray.tables.row_checkpoints import RowCheckpoints, RowPlan
from lexray.tables.schemas import text_embeddings

#: Texts of which MLflow shows the first.
_SAMPLE = 20


@dataclass
class EmbeddingRun:
    """What a run has to do, and what it did.

    Attributes
    ----------
    engine : EmbeddingEngine
    plan : RowPlan
    texts : TextColumn
    n_texts, n_missing : int
        Texts, and those among them that had no vector when the run began.
    done : BatchResult
        The results of all batches so far, without their failures.
    failures : list of Refusal
        Texts that have no vector, by their source.
    seconds_to_first, seconds : float
        From the beginning, the engine's start included, to the first result and to the last.
    """

    engine: EmbeddingEngine
    plan: RowPlan[str]
    texts: TextColumn
    n_texts: int
    n_missing: int
    done: BatchResult = field(default_factory=BatchResult)
    failures: list[Refusal] = field(default_factory=list)
    seconds_to_first: float = 0.0
    seconds: float = 0.0

    @property
    def reasons(self) -> dict[str, int]:
        """Failures by reason."""
        return dict(Counter(failure.reason for failure in self.failures))

    def counts(self) -> dict[str, Any]:
        """What was read, written and refused, by name."""
        table = delta.dataset(self.plan.rows.out)
        return {
            "texts": self.n_texts,
            "embedded": self.done.n_rows,
            "unchanged": self.n_texts - self.n_missing,
            "truncated": int(table.count_rows(filter=pc.field("truncated"))),
            "failed": len(self.failures),
            "failed_by_reason": self.reasons,
            "skipped": self.texts.n_rows() - self.n_texts,
            "dimension": _table_dimension(self.plan.rows.out),
        }

    def metrics(self, price_per_million_tokens: float | None, price_per_hour: float | None) -> dict[str, float]:
        """Speed, and the cost of 1000 texts where a price is given, in its currency."""
        done = self.done
        return {
            "seconds_to_first_vector": self.seconds_to_first,
            "seconds": self.seconds,
            "tokens_in": done.n_tokens,
            # While the model was at work, its start excluded.
            "tokens_per_s": done.n_tokens / (done.ended - done.began) if done.n_tokens else 0.0,
            **{f"failed/{reason}": n for reason, n in self.reasons.items()},
            **cost_per_1000(
                done.n_rows, (price_per_million_tokens, done.n_tokens / 1e6), (price_per_hour, self.seconds / 3600)
            ),
        }


def embed_missing(
    engine: EmbeddingEngine, texts: TextColumn, out: str, force: bool, progress: Progress
) -> EmbeddingRun:
    """Embed the texts that `out` has no vector of, and commit the table of all vectors that are wanted.

    Parameters
    ----------
    engine : EmbeddingEngine
    texts : TextColumn
    out : str
        Table of `schemas.text_embeddings`.
    force : bool
        Embed all texts anew.
    progress : Progress

    Raises
    ------
    LexrayError
        If the engine does not start, or ends in the middle of the work. What was finished is kept.
    """
    spec = engine.spec  # without its engine, which does not travel
    dimension = engine.dimension if spec.fixes_dimension else _table_dimension(out)
    rows = RowCheckpoints(out, text_embeddings(dimension))
    plan = RowPlan(texts, lambda _, text: spec.key(text), rows, force)
    if force:
        plan.rows.remove()
    parts = plan.progress()
    if not spec.fixes_dimension and (any(part.missing for part in parts.values()) or not plan.is_committed()):
        # Only the model's name is part of a key: behind it there may be a model with other vectors by now.
        plan = replace(plan, rows=RowCheckpoints(out, text_embeddings(engine.dimension)))
        parts = plan.progress()
    run = EmbeddingRun(
        engine, plan, texts, sum(part.rows for part in parts.values()), sum(part.missing for part in parts.values())
    )
    start = time.monotonic()
    if run.n_missing:
        with progress.task("texts", total=run.n_missing) as task:
            for result in engine.embed(plan, [part for part, of_part in parts.items() if of_part.missing]):
                run.seconds_to_first = run.seconds_to_first or time.monotonic() - start
                run.failures += result.failures
                run.done += replace(result, failures=())
                task.advance(result.n_rows + len(result.failures))
    run.seconds = time.monotonic() - start
    plan.commit("text_embeddings", {failure.file for failure in run.failures})
    return run


def _table_dimension(out: str) -> int:
    """Length of the vectors that a table holds; any where there is no table yet."""
    return int(delta.dataset(out).schema.field("embedding").type.list_size) if delta.is_table(out) else 1


def log_provenance(run: EmbeddingRun, mlflow_run: MlflowRun) -> None:
    """Log which engine and model it was, and what some of the rows are made of."""
    # An engine that had nothing to do was not started, and an endpoint not asked what it is.
    provenance = run.engine.provenance if run.n_missing else Provenance("", "", run.engine.spec.model, "")
    tags = {f"text_model.{name}": value for name, value in vars(provenance).items() if value and name != "model"}
    mlflow_run.tags(tags | {"text_model": provenance.model})
    rows = delta.dataset(run.plan.rows.out).head(_SAMPLE, columns=["source_id", "truncated", "engine_version", "part"])
    texts: dict[str, str] = {}
    for part in set(rows["part"].to_pylist()):
        texts |= run.texts.read(part, rows["source_id"].to_pylist())
    mlflow_run.table([row | {"text": texts[row["source_id"]]} for row in rows.to_pylist()], "sample.json")
