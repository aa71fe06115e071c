"""A whole simulated archive on disk: event files, papers, labels and true rates.

``OUT/events/*.fits`` one file a detection, ``OUT/literature.jsonl`` one paper a line, ``OUT/labels.parquet`` one row a
source, ``OUT/true_rates.parquet`` the `rates` schema, ``OUT/archive.json`` what the archive was made from.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lexray.errors import ConfigError
from lexray.simulation.event_file import write_event_file
from lexray.simulation.papers.papers import simulate_papers
from lexray.simulation.source import SimulatedSource, simulate_source
from lexray.simulation.true_rate import CELLS
from lexray.tables.schemas import RATES, check, documented_field
from lexray.version import __version__

MANIFEST = "archive.json"
#: Sources whose rates are held in memory and written together.
_BATCH = 64


_f8 = pa.float64()

#: Columns of `labels.parquet`; what does not apply to a source is null.
LABELS = pa.schema(
    [
        documented_field("source_id", pa.string()),
        documented_field("class", pa.string(), "AGN, YSO, LM-STAR, HM-STAR, NS, LMXB, CV or HMXB"),
        documented_field("ra", _f8, "ICRS", "deg"),
        documented_field("dec", _f8, "ICRS", "deg"),
        documented_field("variability", pa.string(), "steady, flare, dip, eclipse, periodic or red_noise"),
        documented_field("is_variable", pa.bool_(), "whether the true rate varies within an observation"),
        documented_field("hr_ms", _f8, "(M − S)/(M + S) of the true mean rates, background included"),
        documented_field("hr_hm", _f8, "(H − M)/(H + M)"),
        documented_field("hr_hs", _f8, "(H − S)/(H + S)"),
        documented_field("rms", _f8, "fractional rms of the true rate within observations, on the published cells"),
        documented_field(
            "rms_between", _f8, "standard deviation of the observations' log10 mean rates; null of one", "dex"
        ),
        documented_field("log_rate", _f8, "log10 of the true mean rate between 0.5 and 7 keV", "log10(ct/s)"),
        documented_field("n_observations", pa.int32()),
        documented_field("expected_counts", _f8, "between 0.5 and 7 keV in all observations"),
        documented_field("nh", _f8, "column density", "1e22 cm-2"),
        documented_field("gamma", _f8, "photon index"),
        documented_field("kt", _f8, "temperature of the cooler plasma", "keV"),
        documented_field("kt_hot", _f8, "temperature of the hotter plasma", "keV"),
        documented_field("kt_bb", _f8, "temperature of the black body", "keV"),
        documented_field("hot_share", _f8, "of the unabsorbed energy flux"),
        documented_field("bb_share", _f8, "of the unabsorbed energy flux"),
        documented_field("line_share", _f8, "of the unabsorbed energy flux, in the 6.4 keV line"),
        documented_field("amplitude", _f8, "flare peak over level, dip depth, half amplitude, or rms of the log-rate"),
        documented_field("period", _f8, "of the modulation, or between two dips", "s"),
        documented_field("timescale", _f8, "a flare's decay or a dip's width", "s"),
        documented_field("relative_timescale", _f8, "timescale, else period, over the shortest observation"),
        documented_field("tilt", _f8, "soft over hard modulation"),
        documented_field("distance", _f8, "", "kpc"),
        documented_field("redshift", _f8),
        documented_field("log_flux", _f8, "observed, 0.5–7 keV", "log10(erg cm-2 s-1)"),
        documented_field("log_lx", _f8, "corrected for absorption, 0.5–7 keV", "log10(erg s-1)"),
        documented_field("has_literature", pa.bool_()),
    ]
)


def simulate_archive(
    out: str, sources: int, seed: int, advance: Callable[[int], None] = lambda n: None
) -> tuple[dict[str, int], dict[str, int], float]:
    """Write an archive; the same seed and number of sources give the same bytes in every file.

    Parameters
    ----------
    out : str
        A local folder: new, empty, or an archive simulated before, which is replaced.
    sources : int
        How many, with 1 to 3 event files each.
    seed : int
        Not negative.
    advance : callable, optional
        Told how many sources were just done.

    Returns
    -------
    counts : dict of str to int
        Number of 'sources', 'files', 'events' (all that the files hold), 'papers' and 'sources with literature'.
    classes : dict of str to int
        Number of sources by class.
    median_counts : float
        Usable events of the median detection.

    Raises
    ------
    ConfigError
        If `out` is an object store's URI, a file, or a folder with anything else in it.
    """
    folder = _clear(out)
    (folder / "events").mkdir()
    # Written first: it marks the folder as ours, also where the run is cut off.
    said = {"made_by": "lexray simulate", "lexray": __version__, "sources": sources, "seed": seed}
    (folder / MANIFEST).write_text(json.dumps(said, indent=1) + "\n")

    labels: list[dict[str, Any]] = []
    counts: list[int] = []
    events = papers = 0
    with (
        (folder / "literature.jsonl").open("w", encoding="utf-8") as literature,
        pq.ParquetWriter(folder / "true_rates.parquet", RATES, compression="zstd") as rates,
    ):
        for first in range(0, sources, _BATCH):
            made = [simulate_source(seed, index) for index in range(first, min(first + _BATCH, sources))]
            for source in made:
                written = simulate_papers(source, seed)
                literature.writelines(json.dumps(paper, ensure_ascii=False) + "\n" for paper in written)
                labels.append({**source.labels, "has_literature": bool(written)})
                papers += len(written)
                for o in source.observations:
                    write_event_file(folder / "events" / f"acisf{o.obs_id}.fits", source, o)
                    counts.append(int(np.count_nonzero(o.usable)))
                    events += len(o.time)
                advance(1)
            rates.write_table(true_rates(made))
    columns = [pa.array([row[f.name] for row in labels], type=f.type, from_pandas=True) for f in LABELS]
    pq.write_table(pa.Table.from_arrays(columns, schema=LABELS), folder / "labels.parquet", compression="zstd")
    written_in_all = {
        "sources": sources,
        "files": len(counts),
        "events": events,
        "papers": papers,
        "sources with literature": sum(row["has_literature"] for row in labels),
    }
    classes = dict(sorted(Counter(row["class"] for row in labels).items()))
    return written_in_all, classes, float(np.median(counts))


def true_rates(sources: list[SimulatedSource]) -> pa.Table:
    """Rows of the `rates` schema: three bands a detection, `lower` and `upper` equal to the rate."""
    seen = [(source, o) for source in sources for o in source.observations]
    ids = [source.detection_id(o) for source, o in seen for _ in range(3)]
    values = [o.true_rate.astype(np.float32) for _, o in seen]
    times = [np.tile((np.arange(CELLS) + 0.5) * (o.rate.duration / CELLS), 3).astype(np.float32) for _, o in seen]
    offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * CELLS)
    rate = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(values).ravel()))
    columns = {
        "detection_id": pa.array(ids),
        "band": pa.array(np.tile(np.arange(3, dtype=np.int8), len(values))),
        "t": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(times))),
        **dict.fromkeys(("rate", "lower", "upper"), rate),
    }
    return check(pa.table(columns), RATES, "true_rates.parquet")


def _clear(out: str) -> Path:
    if "://" in out:
        raise ConfigError(f"out: {out}: event files are simulated into a local folder; copy them from there")
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out: {out}: this is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MANIFEST).is_file():
            raise ConfigError(f"out: {out}: not empty and not a simulated archive; give a new folder")
        for name in ("events", "literature.jsonl", "labels.parquet", "true_rates.parquet", MANIFEST, "_lexray.json"):
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
