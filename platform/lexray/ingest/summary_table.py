"""The table that `lexray ingest` prints: how many files and events were read, kept and refused."""

from collections.abc import Mapping
from typing import Any

from rich import filesize
from rich.table import Column, Table

from lexray.events.fits.drop_causes import CAUSES


def summary_table(counts: Mapping[str, Any], metrics: Mapping[str, float]) -> Table:
    """Table of what `lexray ingest` counted and measured.

    Parameters
    ----------
    counts, metrics : mapping
        As the job reports them.
    """
    refused = {key.removeprefix("refused_"): n for key, n in counts.items() if key.startswith("refused_")}
    dropped = {cause: counts[f"dropped_{cause}"] for cause in CAUSES}
    changes = {name: counts[f"files_{name}"] for name in ("new", "changed", "unchanged", "gone")}
    share = counts["events_kept"] / counts["events_in"] if counts["events_in"] else 0.0
    table = Table(
        Column(style="bold"),
        Column(justify="right"),
        Column(overflow="fold"),
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for name, number, details in (
        ("files", counts["files"], f"{_listed(changes)}; {filesize.decimal(counts['bytes'])}"),
        ("refused", sum(refused.values()), _listed(refused)),
        ("detections", counts["detections"], f"of {counts['sources']:,} sources"),
        ("events in", counts["events_in"], _listed({"out of order": counts["unsorted"]})),
        ("kept", counts["events_kept"], f"{share:.1%}"),
        ("dropped", sum(dropped.values()), _listed(dropped)),
        ("speed", round(metrics["files_per_s"]), f"files/s, {metrics['events_per_s']:,.0f} events/s"),
    ):
        table.add_row(f"  {name}", f"{number:,}", details)
    return table


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in found.items() if n)
