"""Files per second of `lexray ingest` beside a plain astropy.io.fits loop over the same files, in one run.

python benchmarks/ingest.py [--files 2000] [--events 3400] [--out benchmarks/results/ingest.json]

Ray's start is excluded, and a first small ingest brings its workers up before anything is timed. The loop is what a
user writes today: open, take the columns and the good times, keep the events of the band. It writes nothing; ingest
checks and hashes every file, and writes the Parquet table. The reader alone, on one core without Ray, is measured too.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fitsio
import numpy as np
import ray
from astropy.io import fits as astropy_fits

from lexray import __version__, cluster
from lexray.config import RayConfig, TrackingConfig
from lexray.events.fits import read_events
from lexray.job import execute
from lexray.jobs.ingest import JOB, Config
from lexray.progress import Progress

#: Columns of a Chandra event file beside time, energy and PI, so that rows are as wide as real ones.
_OTHER_COLUMNS = {"ccd_id": "i2", "node_id": "i2", "expno": "i4", "chipx": "i2", "chipy": "i2", "tdetx": "i2",
                  "tdety": "i2", "detx": "f4", "dety": "f4", "x": "f4", "y": "f4", "pha": "i4",
                  "fltgrade": "i2"}  # fmt: skip
_GOOD_GRADES = (0, 2, 3, 4, 6)


def make_archive(folder: Path, n_files: int, n_events: int, generator: np.random.Generator) -> list[Path]:
    """Write Chandra-like event files of 17 columns; the number of events scatters by a third around `n_events`."""
    files = []
    for i in range(n_files):
        n = max(n_events // 10, int(generator.normal(n_events, n_events / 3)))
        energy = generator.lognormal(7.3, 0.6, n).astype("f4")
        columns = {
            "time": np.sort(generator.uniform(3.4e8, 3.4e8 + 3e4, n)),
            "energy": energy,
            "pi": np.minimum(energy / 14.6 + 1, 1024).astype("i4"),
            **{name: generator.integers(0, 1000, n).astype(kind) for name, kind in _OTHER_COLUMNS.items()},
            "grade": generator.choice(_GOOD_GRADES, n).astype("i2"),
        }
        header = {"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBS_ID": str(i), "SRCNAME": f"SRC {i}", "MJDREF": 50814.0,
                  "TIMESYS": "TT", "TIMEDEL": 3.14, "DTCOR": 0.987, "RA_TARG": 10.0, "DEC_TARG": 41.0}  # fmt: skip
        files.append(folder / f"{i:06d}.fits")
        with fitsio.FITS(str(files[-1]), "rw", clobber=True) as file:
            file.write(None)
            file.write_table(list(columns.values()), names=list(columns), extname="EVENTS", header=header)
            bounds = [np.array([3.4e8, 3.4e8 + 2e4]), np.array([3.4e8 + 1e4, 3.4e8 + 3e4])]
            file.write_table(bounds, names=["START", "STOP"], extname="GTI")
    return files


def plain_loop(files: Sequence[Path]) -> None:
    """Read events as a script does."""
    for file in files:
        with astropy_fits.open(file) as hdus:
            events, gti = hdus["EVENTS"].data, hdus["GTI"].data
            time, energy = np.asarray(events["time"]), np.asarray(events["energy"]) / 1000
            good = np.any((time[:, None] >= gti["START"]) & (time[:, None] <= gti["STOP"]), axis=1)
            keep = good & (energy >= 0.5) & (energy <= 7)
            time[keep], energy[keep], hdus["EVENTS"].header["DTCOR"]


def reader_alone(files: Sequence[Path]) -> None:
    """Read events with `lexray.read_events` on one core."""
    for file in files:
        read_events(file)


def timed(function: Callable[[Sequence[Path]], None], files: Sequence[Path]) -> tuple[float, float]:
    """Files a second of the clock, and of the processor, which a busy machine disturbs less."""
    clock, processor = time.perf_counter(), time.process_time()
    function(files)
    return len(files) / (time.perf_counter() - clock), len(files) / (time.process_time() - processor)


def ingest(folder: Path, out: Path) -> dict[str, float]:
    """Figures of one `lexray ingest` in the running Ray session."""
    config = Config(
        inputs=[str(folder)], out=str(out), tracking=TrackingConfig(uri=f"sqlite:///{out.parent}/mlflow.db")
    )
    report = execute(JOB, config, Progress())
    return {**report.metrics, "events": float(report.counts["events_in"]), "job_seconds": report.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of ingest beside a plain astropy.io.fits loop.")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--events", type=int, default=3400, help="mean events of a file")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ingest.json")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="lexray-bench-") as name:
        scratch = Path(name)
        archive, small = scratch / "archive", scratch / "small"
        for folder in (archive, small):
            folder.mkdir()
        files = make_archive(archive, arguments.files, arguments.events, np.random.default_rng(0))
        make_archive(small, 64, 100, np.random.default_rng(1))
        sample = files[:: max(1, len(files) // 300)]
        plain_loop(sample[:10])
        reader_alone(sample[:10])
        load = os.getloadavg()[0]
        (loop, loop_cpu), (reader, reader_cpu) = timed(plain_loop, sample), timed(reader_alone, sample)
        start = time.perf_counter()
        with cluster.session(RayConfig()):
            ray_start = time.perf_counter() - start
            cpus = int(ray.cluster_resources()["CPU"])
            ingest(small, scratch / "warm")
            ours = ingest(archive, scratch / "events")

    result = {
        "benchmark": "ingest",
        "lexray": __version__,
        "machine": {"cores": os.cpu_count(), "cpu": platform.processor() or platform.machine(), "ray_cpus": cpus},
        "load_average_at_start": round(load, 1),
        "files": len(files),
        "mean_events": arguments.events,
        "astropy_loop_files_per_s": round(loop, 1),
        "read_events_files_per_s": round(reader, 1),
        "ingest_files_per_s": round(ours["files_per_s"], 1),
        "ingest_events_per_s": round(ours["events_per_s"]),
        "ingest_job_seconds": ours["job_seconds"],
        "read_events_over_loop": round(reader / loop, 2),
        "read_events_over_loop_by_cpu_time": round(reader_cpu / loop_cpu, 2),
        "ingest_over_loop": round(ours["files_per_s"] / loop, 2),
        "ray_start_seconds_excluded": round(ray_start, 1),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
