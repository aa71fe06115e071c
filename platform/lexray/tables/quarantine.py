"""The quarantine: what a job refused and why, a row each, in the table ``OUT.quarantine``."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from lexray.tables import delta
from lexray.tables.schemas import QUARANTINE


@dataclass(frozen=True)
class Refusal:
    """An input that cannot be used.

    Attributes
    ----------
    file : str
        The file or table that holds it, or the source that it is about.
    reason : str
        A short code, the same for all that are refused for this cause.
    detail : str
        What was found, for a person.
    """

    file: str
    reason: str
    detail: str


def write_quarantine(out: str, stage: str, refusals: Iterable[Refusal]) -> str:
    """Write what the job `stage` refused on its way to `out`, sorted by file; returns the table's path.

    It is written where nothing was refused, too: the refusals of an earlier run must not outlive it.
    """
    table = f"{out}.quarantine"
    rows = [
        {"file": refusal.file, "stage": stage, "reason": refusal.reason, "detail": refusal.detail}
        for refusal in sorted(refusals, key=lambda refusal: refusal.file)
    ]
    fragments = [delta.write_part(table, QUARANTINE, 0, pa.Table.from_pylist(rows, QUARANTINE))] if rows else []
    delta.commit(table, "quarantine", QUARANTINE, fragments)
    return table
