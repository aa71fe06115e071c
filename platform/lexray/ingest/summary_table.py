"""The table that `lexray ingest` prints: how many files and events were read, kept and refused."""

from collections.abc import Mapping
from typing import Any

from rich import filesize
from rich.table import Table

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
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    table.add_row("  files", f"{counts['files']:,}", _listed(changes) + f"; {filesize.decimal(counts['bytes'])}")
    table.add_row("  refused", f"{sum(refused.values()):,}", _listed(refused))
    table.add_row("  detections", f"{counts['detections']:,}", f"of {counts['sources']:,} sources")
    table.add_row("  events in", f"{counts['events_in']:,}", _listed({"out of order": counts["unsorted"]}))
    table.add_row("  kept", f"{counts['events_kept']:,}", f"{share:.1%}")
    table.add_row("  dropped", f"{sum(dropped.values()):,}", _listed(dropped))
    table.add_row("  speed", f"{metrics['files_per_s']:,.0f}", f"files/s, {metrics['events_per_s']:,.0f} events/s")
    return table


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in found.items() if n)
