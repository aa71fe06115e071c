"""Event files per second from file to rates with intervals, by the reference autodecoder.

python benchmarks/rates.py [--files 1000] [--events 470] [--rounds 3] [--out FILE]

Once in one process on one core: read each file, reconstruct its rates, with 68 % intervals and anomaly scores. And once
by the two jobs that a user runs, ingest and rates, on all cores, Ray's start excluded. The files are Chandra's, of 17
columns; of their events, two in three are good ones in the energy bands.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from ingest import make_archive
from lexray.events.reader import read_events
from lexray.inference.autodecoder import REFERENCE, load_autodecoder
from lexray.jobs import ingest, rates
from lexray.runtime import ray_session
from lexray.runtime.config import RayConfig, parse
from lexray.runtime.job import execute
from lexray.runtime.progress import Progress
from lexray.version import __version__

_AT_ONCE = 64


def in_one_process(files: Sequence[Path]) -> int:
    """Photons that were read, all of them reconstructed."""
    model, photons = load_autodecoder(REFERENCE), 0
    for first in range(0, len(files), _AT_ONCE):
        events = [read_events(file) for file in files[first : first + _AT_ONCE]]
        model.encode_with_rates(events, level=0.68)
        photons += sum(len(e) for e in events)
    return photons


def by_the_jobs(folder: Path, out: Path, cores: int) -> None:
    """Ingest the files of a folder, and write their rates."""
    common = {"tracking": {"uri": f"sqlite:///{out}.db"}, "force": True}
    keys = {**common, "inputs": [str(folder)], "out": str(out / "events")}
    execute(ingest.JOB, parse(ingest.JOB.config, keys), _silent())
    keys = {**common, "events": str(out / "events"), "out": str(out / "rates"), "workers": cores}
    execute(rates.JOB, parse(rates.JOB.config, keys), _silent())


def _silent() -> Progress:
    return Progress(Console(quiet=True))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Event files per second from file to rates.")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--events", type=int, default=470, help="in a file; two in three are good ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rates.json")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        files = make_archive(root / "files", arguments.files, arguments.events, np.random.default_rng(0))
        photons = in_one_process(files)  # all read once before: from memory from now on
        os.sched_setaffinity(0, cores[:1])
        alone = [seconds(lambda: in_one_process(files)) for _ in range(arguments.rounds)]
        os.sched_setaffinity(0, cores)
        with ray_session.session(RayConfig(num_cpus=len(cores))):
            jobs = [
                seconds(lambda: by_the_jobs(root / "files", root / "out", len(cores)))
                for _ in range(arguments.rounds + 1)
            ][1:]
    result = {
        "benchmark": "rates",
        "lexray": __version__,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": len(cores)},
        "files": arguments.files,
        "photons_a_file": photons / arguments.files,
        "files_per_s_of_one_process_on_one_core": arguments.files / statistics.median(alone),
        "files_per_s_and_core_of_ingest_and_rates": arguments.files / statistics.median(jobs) / len(cores),
        "rounds": {"one_process_s": alone, "jobs_s": jobs},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
