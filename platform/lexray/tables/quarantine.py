"""The quarantine: what a job refused and why, a row each, in the table ``OUT.quarantine``."""

from collections.abc import Iterable, Sequence
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


def quarantine_of(out: str) -> str:
    """Path of the table of what was refused on the way to `out`."""
    return f"{out}.quarantine"


def describe_refusals(refusals: Sequence[Refusal], most: int = 3) -> str:
    """The first refusals with what is wrong, and how many more there are, in one line for a person."""
    shown = [f"{refusal.file.rpartition('/')[2]}: {refusal.detail}" for refusal in refusals[:most]]
    more = [f"and {len(refusals) - most} more"] if len(refusals) > most else []
    return "; ".join(shown + more)


def not_finite(table: str, identity: str, names: Iterable[str]) -> list[Refusal]:
    """Refusals of rows of a table whose vector is missing or not finite, by the column that identifies them."""
    return [
        Refusal(table, "not_finite", f"{identity} {name}: its vector is missing or holds numbers that are not finite")
        for name in names
    ]


def write_quarantine(out: str, stage: str, refusals: Iterable[Refusal]) -> str:
    """Write what the job `stage` refused on its way to `out`, sorted by file; returns the table's path.

    It is written where nothing was refused, too: the refusals of an earlier run must not outlive it.
    """
    table = quarantine_of(out)
    rows = [
        {"file": refusal.file, "stage": stage, "reason": refusal.reason, "detail": refusal.detail}
        for refusal in sorted(refusals, key=lambda refusal: refusal.file)
    ]
    fragments = [delta.write_part(table, QUARANTINE, 0, pa.Table.from_pylist(rows, QUARANTINE))] if rows else []
    delta.commit(table, "quarantine", QUARANTINE, fragments)
    delta.vacuum(table)
    return table
