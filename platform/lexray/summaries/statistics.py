"""What a table of summaries holds, counted batch by batch: the texts of ten million sources are not for one memory."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from lexray.tables import delta
from lexray.tables.quarantine import Refusal

#: Rows of which MLflow shows the first.
_SAMPLE = 20
_COLUMNS = ("source_id", "summary", "status", "reason", "detail", "grounded", "n_papers", "n_papers_left_out")


@dataclass
class SummaryStatistics:
    """Counts over a table.

    Attributes
    ----------
    sources, papers, papers_left_out : int
    status : Counter
        Rows by `status`.
    refusals : list of Refusal
        Sources that failed.
    words : int
        Of all summaries.
    checked : int
        Summaries with something that could be looked for in the papers.
    grounded : float
        Sum of the shares that were found.
    sample : list of dict
        Some rows.
    """

    sources: int = 0
    papers: int = 0
    papers_left_out: int = 0
    status: Counter[str] = field(default_factory=Counter)
    refusals: list[Refusal] = field(default_factory=list)
    words: int = 0
    checked: int = 0
    grounded: float = 0.0
    sample: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Sources without a summary."""
        return self.status["failed"]

    @property
    def ungrounded(self) -> int:
        """Summaries that say more than their papers do."""
        return self.status["ungrounded"]

    @property
    def reasons(self) -> dict[str, int]:
        """Failed sources by `reason`."""
        return dict(Counter(refusal.reason for refusal in self.refusals))

    @property
    def counts(self) -> dict[str, Any]:
        """For `job.JobResult`."""
        return {
            "sources": self.sources,
            "papers": self.papers,
            "papers_left_out": self.papers_left_out,
            "summaries": self.sources - self.failed,
            "ungrounded": self.ungrounded,
            "failed": self.failed,
            "failed_by_reason": self.reasons,
        }

    @property
    def metrics(self) -> dict[str, float]:
        """For `job.JobResult`."""
        return {
            "mean_words": self.words / max(self.sources - self.failed, 1),
            "mean_grounded": self.grounded / max(self.checked, 1),
            **{f"failed/{reason}": float(n) for reason, n in self.reasons.items()},
        }


def summary_statistics(table: str) -> SummaryStatistics:
    """Count a table of summaries."""
    found = SummaryStatistics()
    for batch in delta.dataset(table).to_batches(columns=list(_COLUMNS)):
        found.sources += batch.num_rows
        found.papers += pc.sum(batch["n_papers"]).as_py() or 0
        found.papers_left_out += pc.sum(batch["n_papers_left_out"]).as_py() or 0
        found.status.update(batch["status"].to_pylist())
        failed = batch.filter(pc.is_valid(batch["reason"])).select(["source_id", "reason", "detail"]).to_pylist()
        found.refusals += [Refusal(row["source_id"], row["reason"], row["detail"] or "") for row in failed]
        found.words += pc.sum(pc.count_substring_regex(batch["summary"], r"\S+")).as_py() or 0
        found.checked += batch.num_rows - batch["grounded"].null_count
        found.grounded += pc.sum(batch["grounded"]).as_py() or 0.0
        if len(found.sample) < _SAMPLE:
            with_text = batch.filter(pc.is_valid(batch["summary"]))
            found.sample += with_text.slice(0, _SAMPLE - len(found.sample)).to_pylist()
    return found
