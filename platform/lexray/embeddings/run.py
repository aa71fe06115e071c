"""A run of `lexray embed`: find the texts without a vector, embed them, commit the table, and say what was done."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from lexray.embeddings.engines import EmbeddingEngine
from lexray.embeddings.store import EmbeddingStats, Provenance, TextColumn, WorkPlan
from lexray.runtime.progress import Progress
from lexray.runtime.tracking import MlflowRun
from lexray.tables import delta
from lexray.tables.row_checkpoints import PartProgress

#: Texts of which MLflow shows the first.
_SAMPLE = 20


@dataclass
class EmbeddingRun:
    """What a run has to do, and what it did.

    Attributes
    ----------
    engine : EmbeddingEngine
    plan : WorkPlan
    n_texts, n_missing : int
        Texts, and those among them that had no vector when the run began.
    stats : EmbeddingStats
    """

    engine: EmbeddingEngine
    plan: WorkPlan
    n_texts: int
    n_missing: int
    stats: EmbeddingStats = field(default_factory=EmbeddingStats)

    def counts(self) -> dict[str, Any]:
        """What was read, written and refused, by name."""
        table = delta.dataset(self.plan.out)
        return {
            "texts": self.n_texts,
            "embedded": self.stats.n_rows,
            "unchanged": self.n_texts - self.n_missing,
            "truncated": int(table.count_rows(filter=pc.field("truncated"))),
            "failed": len(self.stats.failures),
            "failed_by_reason": self.stats.reasons,
            "skipped": self.plan.texts.count() - self.n_texts,
            "dimension": int(table.schema.field("embedding").type.list_size),
        }

    def metrics(self, price_per_million_tokens: float | None, price_per_hour: float | None) -> dict[str, float]:
        """Speed, and the cost of 1000 texts where a price is given, in its currency."""
        stats = self.stats
        metrics = {
            "seconds_to_first_vector": stats.seconds_to_first,
            "seconds": stats.seconds,
            "tokens_in": stats.n_tokens,
            "tokens_per_s": stats.tokens_per_s,
            **{f"failed/{reason}": n for reason, n in stats.reasons.items()},
        }
        if stats.n_rows and (price_per_million_tokens is not None or price_per_hour is not None):
            cost = (price_per_million_tokens or 0) * stats.n_tokens / 1e6 + (price_per_hour or 0) * stats.seconds / 3600
            metrics["cost_per_1000"] = 1000 * cost / stats.n_rows
        return metrics


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
    plan = WorkPlan(texts, engine.spec, out, force)
    parts = plan.progress()
    if not engine.spec.fixes_dimension and (_missing(parts) or not plan.is_committed()):
        # Only the model's name is part of a key: behind it there may be a model with other vectors by now.
        plan = replace(plan, dimension=engine.dimension)
        parts = plan.progress()
    missing = _missing(parts)
    run = EmbeddingRun(engine, plan, sum(part.rows for part in parts.values()), sum(missing.values()))
    with progress.task("texts", total=run.n_missing) as task:
        for result in engine.embed(plan, list(missing)) if missing else ():
            run.stats.add(result)
            task.advance(result.n_rows + len(result.failures))
    run.stats.stop()
    failed = {failure.source_id for failure in run.stats.failures}
    if run.stats.n_rows or not plan.is_committed(failed):
        plan.commit(engine.dimension, failed)
    return run


def _missing(parts: Mapping[int, PartProgress]) -> dict[int, int]:
    """Texts without a vector by part, of parts that have any."""
    return {part: progress.missing for part, progress in parts.items() if progress.missing}


def log_provenance(run: EmbeddingRun, mlflow_run: MlflowRun) -> None:
    """Log which engine and model it was, and what some of the rows are made of."""
    # An engine that had nothing to do was not started, and an endpoint not asked what it is.
    provenance = run.engine.provenance if run.n_missing else Provenance("", "", run.plan.spec.model, "")
    tags = {f"text_model.{name}": value for name, value in vars(provenance).items() if value and name != "model"}
    mlflow_run.tags(tags | {"text_model": provenance.model})
    rows = delta.dataset(run.plan.out).head(_SAMPLE, columns=["source_id", "truncated", "engine_version", "part"])
    texts = {
        row["source_id"]: row["text"]
        for part in set(rows["part"].to_pylist())
        for row in run.plan.texts.read(part).to_pylist()
    }
    mlflow_run.table([row | {"text": texts[row["source_id"]]} for row in rows.to_pylist()], "sample.json")
