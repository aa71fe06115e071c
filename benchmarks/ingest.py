"""Files per second of `lexray ingest` beside a plain astropy.io.fits loop over the same files, in one run.

python benchmarks/ingest.py [--files 2000] [--events 3400] [--rounds 3] [--large 20000] [--out FILE]

The loop is what a user writes today: open, take the columns and the good times, keep the events of the band; it writes
nothing. Ingest checks, screens and hashes every file, accounts for every event, and writes the Parquet table. Each
figure is of a process held to its cores, all of Ray's own processes with it, and the loops take turns with ingest: what
else the machine does meets them alike. All files are read once before, so that they come from memory: what is compared
is the software, not the disk. Ray's start is excluded, and a first small ingest brings its workers up before
anything is timed. With ``--large`` the same is measured once more over ten times the files, and how time and memory
grow.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fitsio
import numpy as np

_OBS_ID = b"OBS_ID  = '00000000'"
#: Columns of a Chandra event file beside time, energy, PI and grade, so that rows are as wide as real ones.
_OTHER_COLUMNS = {"ccd_id": "i2", "node_id": "i2", "expno": "i4", "chipx": "i2", "chipy": "i2", "tdetx": "i2",
                  "tdety": "i2", "detx": "f4", "dety": "f4", "x": "f4", "y": "f4", "pha": "i4",
                  "fltgrade": "i2"}  # fmt: skip
_GOOD_GRADES = (0, 2, 3, 4, 6)


def make_archive(folder: Path, n_files: int, n_events: int, generator: np.random.Generator) -> list[Path]:
    """Write Chandra-like event files of 17 columns; the number of events scatters by a third around `n_events`.

    A thousand different ones, and beyond these the same under other OBS_IDs.
    """
    folder.mkdir()
    patterns = [_content(folder / "pattern", n_events, generator) for _ in range(min(n_files, 1000))]
    files = [folder / f"{i:06d}.fits" for i in range(n_files)]
    for i, file in enumerate(files):
        file.write_bytes(patterns[i % len(patterns)].replace(_OBS_ID, b"OBS_ID  = '%08d'" % i))
    return files


def _content(path: Path, n_events: int, generator: np.random.Generator) -> bytes:
    n = max(n_events // 10, int(generator.normal(n_events, n_events / 3)))
    energy = generator.lognormal(7.3, 0.6, n).astype("f4")
    columns = {
        "time": np.sort(generator.uniform(3.4e8, 3.4e8 + 3e4, n)),
        "energy": energy,
        "pi": np.minimum(energy / 14.6 + 1, 1024).astype("i4"),
        **{name: generator.integers(0, 1000, n).astype(kind) for name, kind in _OTHER_COLUMNS.items()},
        "grade": generator.choice(_GOOD_GRADES, n).astype("i2"),
    }
    header = {"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBS_ID": "00000000", "MJDREF": 50814.0, "TIMESYS": "TT",
              "SRCNAME": f"SRC {generator.integers(10**6)}", "TIMEDEL": 3.14, "DTCOR": 0.987, "RA_TARG": 10.0,
              "DEC_TARG": 41.0}  # fmt: skip
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(None)
        file.write_table(list(columns.values()), names=list(columns), extname="EVENTS", header=header)
        bounds = [np.array([3.4e8, 3.4e8 + 2e4]), np.array([3.4e8 + 1e4, 3.4e8 + 3e4])]
        file.write_table(bounds, names=["START", "STOP"], extname="GTI")
    content = path.read_bytes()
    path.unlink()
    return content


def plain_loop(files: Sequence[Path]) -> None:
    """Read events as a script does."""
    from astropy.io import fits

    for file in files:
        with fits.open(file) as hdus:
            events, gti = hdus["EVENTS"].data, hdus["GTI"].data
            time, energy = np.asarray(events["time"]), np.asarray(events["energy"]) / 1000
            good = np.any((time[:, None] >= gti["START"]) & (time[:, None] <= gti["STOP"]), axis=1)
            keep = good & (energy >= 0.5) & (energy <= 7)
            time[keep], energy[keep], hdus["EVENTS"].header["DTCOR"]


def fitsio_loop(files: Sequence[Path]) -> None:
    """Read two columns with cfitsio, nothing else: how fast the files can be opened at all."""
    for file in files:
        with fitsio.FITS(str(file)) as hdus:
            hdus["EVENTS"].read(columns=["time", "energy"])


def lexray_loop(files: Sequence[Path]) -> None:
    """Read events with `lexray.read_events`."""
    from lexray.events.reader import read_events

    for file in files:
        read_events(file)


def read_into_cache(folder: Path) -> list[Path]:
    """Files of a folder, brought into the system's memory."""
    files = sorted(folder.iterdir())
    for file in files:
        file.read_bytes()
    return files


def measured_loop(loop: Callable[[Sequence[Path]], None], folder: Path) -> dict[str, float]:
    """Files a second of a loop on one core."""
    files = read_into_cache(folder)
    loop(files[:10])
    start = time.perf_counter()
    loop(files)
    return {"files_per_s": len(files) / (time.perf_counter() - start)}


def measured_ingest(folder: Path, cores: int) -> dict[str, float]:
    """Figures of one `lexray ingest` in a fresh Ray session on so many cores."""
    from lexray.jobs.ingest import JOB, IngestConfig
    from lexray.runtime import ray_session
    from lexray.runtime.config import RayConfig, TrackingConfig
    from lexray.runtime.job import execute
    from lexray.runtime.peak_memory import PeakMemory
    from lexray.runtime.progress import Progress

    with tempfile.TemporaryDirectory(prefix="lexray-bench-", dir=folder.parent) as name:
        scratch = Path(name)

        def ingest(archive: Path, out: str) -> dict[str, float]:
            tracking = TrackingConfig(uri=f"sqlite:///{scratch}/mlflow.db")
            config = IngestConfig(inputs=[str(archive)], out=str(scratch / out), tracking=tracking)
            report = execute(JOB, config, Progress())
            return {**report.metrics, "job_seconds": report.seconds}

        start = time.perf_counter()
        with ray_session.session(RayConfig(num_cpus=cores)):
            ray_start = time.perf_counter() - start
            make_archive(scratch / "small", 64 * cores, 100, np.random.default_rng(1))
            ingest(scratch / "small", "warm")
            read_into_cache(folder)
            figures = ingest(folder, "events")
            with PeakMemory() as memory:  # which takes time itself
                ingest(folder, "again")
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**figures, "ray_start_seconds": ray_start, "driver_peak_mib": driver, "all_peak_gib": memory.gib}


_LOOPS = {"astropy": plain_loop, "fitsio": fitsio_loop, "read_events": lexray_loop}


def measure_in_subprocess(what: str, folder: Path, cores: int) -> dict[str, float]:
    """Measure in a process of its own that is held to its cores."""
    code = f"import ingest, json, sys; print('\\n' + json.dumps(ingest.measure({what!r}, {str(folder)!r}, {cores})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(what: str, folder: str, cores: int) -> dict[str, float]:
    """What `measure_in_subprocess` runs."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    return measured_loop(_LOOPS[what], Path(folder)) if what in _LOOPS else measured_ingest(Path(folder), cores)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of ingest beside a plain astropy.io.fits loop.")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--events", type=int, default=3400, help="mean events of a file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=20_000, help="files of the larger archive; 0 leaves it out")
    parser.add_argument("--scratch", type=Path, help="where archives are written, 0.24 MB a file")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ingest.json")
    arguments = parser.parse_args()

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="lexray-bench-", dir=arguments.scratch) as name:
        scratch = Path(name)
        make_archive(scratch / "archive", arguments.files, arguments.events, np.random.default_rng(0))
        cases = [("astropy", 1), ("fitsio", 1), ("read_events", 1), ("ingest", 1), ("ingest", 2)]
        rounds = [
            {case: measure_in_subprocess(case[0], scratch / "archive", case[1]) for case in cases}
            for _ in range(arguments.rounds)
        ]
        large = {}
        if arguments.large:
            make_archive(scratch / "large", arguments.large, arguments.events, np.random.default_rng(0))
            large = measure_in_subprocess("ingest", scratch / "large", 2)

    def median(case: tuple[str, int], figure: str = "files_per_s") -> float:
        return statistics.median(figures[case][figure] for figures in rounds)

    def ratio(case: tuple[str, int], to: tuple[str, int]) -> float:
        pairs = [figures[case]["files_per_s"] / figures[to]["files_per_s"] for figures in rounds]
        return round(statistics.median(pairs), 2)

    small = {figure: median(("ingest", 2), figure) for figure in rounds[0][("ingest", 2)]}
    from lexray.version import __version__

    result = {
        "benchmark": "ingest",
        "lexray": __version__,
        "machine": {"cores": os.cpu_count(), "cpu": _cpu()},
        "load_average_at_start": round(load, 1),
        "files": arguments.files,
        "mean_events": arguments.events,
        "rounds": arguments.rounds,
        "files_per_s": {f"{what}, {cores} core(s)": round(median((what, cores)), 1) for what, cores in cases},
        "over_astropy_loop": {
            f"{what}, {cores} core(s)": ratio((what, cores), ("astropy", 1)) for what, cores in cases[1:]
        },
        "two_cores_over_one": ratio(("ingest", 2), ("ingest", 1)),
        "ingest_events_per_s_two_cores": round(small["events_per_s"]),
        "ray_start_seconds_excluded": round(small["ray_start_seconds"], 1),
        "two_cores": {key: round(value, 3) for key, value in small.items()},
    }
    if large:
        result["large"] = {
            "files": arguments.large,
            "two_cores": {key: round(value, 3) for key, value in large.items()},
            "files_per_s_over_small": round(large["files_per_s"] / small["files_per_s"], 2),
            "driver_peak_over_small": round(large["driver_peak_mib"] / small["driver_peak_mib"], 3),
            "all_peak_over_small": round(large["all_peak_gib"] / small["all_peak_gib"], 3),
        }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
