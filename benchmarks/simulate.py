"""How many event files a second `lexray simulate` writes on one core, papers and tables included.

    python benchmarks/simulate.py [SOURCES]

Writes benchmarks/results/simulate.json.
"""

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from lexray.simulation.archive import simulate_archive

RESULTS = Path(__file__).parent / "results" / "simulate.json"


def main(sources: int) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        simulate_archive(f"{folder}/warm", 8, 1)
        start, cpu = time.perf_counter(), time.process_time()
        counts, _, _ = simulate_archive(f"{folder}/archive", sources, 0)
        wall, busy = time.perf_counter() - start, time.process_time() - cpu
        size = sum(f.stat().st_size for f in Path(folder, "archive").rglob("*") if f.is_file())
    result = {
        "sources": counts["sources"],
        "files": counts["files"],
        "events": counts["events"],
        "megabytes": round(size / 1e6, 1),
        "seconds": round(wall, 3),
        "cpu_seconds": round(busy, 3),
        "files_per_second": round(counts["files"] / wall, 1),
        "files_per_cpu_second": round(counts["files"] / busy, 1),
        "events_per_second": round(counts["events"] / wall),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
