"""What `lexray fetch csc` writes: labels, a source table, the detections with their files, and the files themselves."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lexray.archives import csc
from lexray.archives.csc import Catalogue, Detection
from lexray.archives.downloads import Downloads
from lexray.errors import LexrayError, RefusedInput
from lexray.runtime.progress import ProgressTask
from lexray.tables import delta
from lexray.tables.quarantine import Refusal
from lexray.web.retry import RetryPolicy


def distinct_sources(rows: pa.Table) -> pa.Table:
    """Rows with a name and a position, the first of each name, sorted: a query of one's own may join.

    Raises
    ------
    LexrayError
        If a position is not a number.
    """
    for column in ("ra", "dec"):
        if not pa.types.is_floating(rows[column].type):
            raise LexrayError(f"the query's column '{column}' is {rows[column].type}, not a number of degrees")
    rows = rows.filter(pc.and_(pc.is_valid(rows["name"]), pc.and_(pc.is_valid(rows["ra"]), pc.is_valid(rows["dec"]))))
    _, first = np.unique(np.array(rows["name"].to_pylist(), dtype=str), return_index=True)
    return rows.take(pa.array(first))


def names_of_lines(text: str) -> dict[str, str]:
    """Names one a line, where # begins a comment: the catalogue's way of writing each → as it was written."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return {csc.canonical_name(line): line for line in lines if line}


def named_sources(catalogue: Catalogue, names: Mapping[str, str]) -> tuple[pa.Table, list[Refusal]]:
    """Sources by the names of `names_of_lines`, and the names that the catalogue does not have."""
    sources = distinct_sources(catalogue.named(names))
    unknown = sorted(set(names) - set(sources["name"].to_pylist()))
    return sources, [
        Refusal(names[name], "unknown_source", f"{catalogue.schema} has no source {name!r}") for name in unknown
    ]


def distinct_detections(rows: pa.Table) -> list[Detection]:
    """The detections of a table of the catalogue, each once, sorted."""
    return sorted(set(_detections(rows)))


def _detections(rows: pa.Table) -> list[Detection]:
    return [Detection(**row) for row in rows.select(["obsid", "obi", "region_id"]).to_pylist()]


def write_tables(out: Path, sources: pa.Table, detections: pa.Table, radius: float | None) -> None:
    """Write ``OUT/labels`` and ``OUT/sources.parquet``.

    Parameters
    ----------
    out : Path
    sources, detections : pyarrow.Table
        As the catalogue gives them, one row per source and one per detection of it.
    radius : float or None
        Aperture of all sources in arcsec; None takes 90 % of the counts, from the off-axis angle.
    """
    names = sources["name"].to_pylist()
    source_id = pa.field("source_id", pa.string(), nullable=False)
    labels = sources.drop_columns("name").add_column(0, source_id, pa.array(names, pa.string()))
    delta.write(str(out / "labels"), "labels", labels.schema, labels)
    theta: dict[str, list[float]] = {}
    for name, angle in zip(detections["name"].to_pylist(), detections["theta"].to_pylist(), strict=True):
        theta.setdefault(name, []).append(angle or 0.0)
    # One radius a source, though its observations saw it at several angles: the one of the middle.
    radii = [radius or csc.aperture_radius(float(np.median(theta.get(name, [0.0])))) for name in names]
    schema = pa.schema(
        [
            pa.field("source_id", pa.string()),
            pa.field("ra", pa.float64(), metadata={"unit": "deg"}),
            pa.field("dec", pa.float64(), metadata={"unit": "deg"}),
            pa.field("radius", pa.float64(), metadata={"unit": "arcsec"}),
        ]
    )
    rows = {"source_id": names, "ra": sources["ra"], "dec": sources["dec"], "radius": radii}
    pq.write_table(pa.table(rows, schema=schema), out / "sources.parquet")


def write_paths(out: Path, detections: pa.Table, downloads: Downloads, products: Sequence[str]) -> None:
    """Write ``OUT/detections.parquet``: each detection with the path of each product below ``events/``, null where it
    did not come.
    """
    rows = _detections(detections)
    for product in products:
        keys = [detection.key(product) for detection in rows]
        paths = [downloads.manifest[key].path if downloads.manifest.is_whole(key) else None for key in keys]
        detections = detections.append_column(product, pa.array(paths, pa.string()))
    names = ["source_id" if name == "name" else name for name in detections.column_names]
    pq.write_table(detections.rename_columns(names), out / "detections.parquet")


async def fetch_files(
    folder: Path,
    policy: RetryPolicy,
    service: str,
    release: str,
    files: Sequence[tuple[Detection, str]],
    progress: ProgressTask,
) -> tuple[Downloads, Counter[str], list[tuple[str, RefusedInput]]]:
    """Download the files that are not there yet, on as many connections as the policy allows.

    Parameters
    ----------
    folder : Path
    policy : RetryPolicy
    service : str
        URL of the catalogue's file service.
    release : str
        What the file service calls the catalogue's release.
    files : sequence of (Detection, str)
        Detections with a product each.
    progress : ProgressTask
        Advanced by each file.

    Returns
    -------
    Downloads
        With its manifest, and what was transferred.
    Counter
        'fetched' and 'there_already'.
    list of (str, RefusedInput)
        Files that did not come, with the reason.
    """
    counts: Counter[str] = Counter()
    failures: list[tuple[str, RefusedInput]] = []

    async def worker(left: Iterator[tuple[Detection, str]], downloads: Downloads) -> None:
        for detection, product in left:
            try:
                came = await csc.fetch_product(downloads, service, release, detection, product)
                counts["fetched" if came else "there_already"] += 1
            except RefusedInput as error:
                failures.append((detection.key(product), error))
            progress.advance(1, f"{len(failures)} failed" if failures else "")

    left = iter(files)
    async with aclosing(Downloads(folder, policy)) as downloads, asyncio.TaskGroup() as group:
        for _ in range(policy.connections):
            group.create_task(worker(left, downloads))
    return downloads, counts, failures
