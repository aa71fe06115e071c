"""Summaries that say what their papers do not: the worst of them, for the report."""

from lexray.evaluation.report.report import ReportTable
from lexray.tables import delta

_MAX_ROWS = 20
_COLUMNS = ["source_id", "grounded", "findings", "status", "n_papers", "engine"]


def ungrounded_summaries_table(summaries: str | None) -> ReportTable | None:
    """The least grounded summaries, the worst first; None where all that was checked is in the papers.

    Parameters
    ----------
    summaries : str or None
        Table.
    """
    if summaries is None:
        return None
    rows = [row for row in delta.read(summaries, _COLUMNS).to_pylist() if row["grounded"] is not None]
    poor = sorted((row for row in rows if row["grounded"] < 1), key=lambda row: (row["grounded"], row["source_id"]))
    if not poor:
        return None
    flagged = sum(row["status"] == "ungrounded" for row in poor)
    return ReportTable(
        "Ungrounded summaries",
        f"Of {len(rows):,} summaries whose numbers and named classes could be looked for, {len(poor):,} hold some that "
        f"no sentence on the source in its papers does; {flagged:,} of them are flagged as ungrounded, and not "
        "embedded. The worst:",
        ("Source", "Found", "Papers", "Engine", "Not in the papers"),
        [
            [
                row["source_id"],
                f"{row['grounded']:.0%}",
                str(row["n_papers"]),
                row["engine"],
                "; ".join(row["findings"] or ()),
            ]
            for row in poor[:_MAX_ROWS]
        ],
        numbers=(1, 2),
    )
