"""Ingest killed at random moments, again and again, on an archive that changes: `make soak`.

python benchmarks/soak/ingest.py [--files 3000] [--rounds 12] [--out benchmarks/results/soak_ingest.json]

Each round adds, changes and removes files, starts `lexray ingest`, and kills its whole process group with SIGKILL after
a random time; every third round two run at once and none is killed. After each round the table must be readable; a
last, undisturbed run must leave exactly the rows that a fresh table gets. Ends with exit code 1 where that fails.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fitsio
import numpy as np

from lexray.tables import delta
from lexray.tables.schemas import EVENTS
from lexray.version import __version__

_OBS_ID = b"OBS_ID  = '00000000'"


def write_pattern(path: Path) -> bytes:
    """A small Chandra-like event file."""
    header = {"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBS_ID": "00000000", "SRCNAME": "S", "MJDREF": 50814.0,
              "TIMESYS": "TT", "DTCOR": 0.98}  # fmt: skip
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(None)
        columns = [1000.0 + np.arange(300.0), np.full(300, 100, dtype="i4")]
        file.write_table(columns, names=["time", "pi"], extname="EVENTS", header=header)
        file.write_table([np.array([900.0]), np.array([1500.0])], names=["START", "STOP"], extname="GTI")
    content = path.read_bytes()
    path.unlink()
    return content


def modify_archive(archive: Path, pattern: bytes, round_: int, n: int, generator: np.random.Generator) -> None:
    """Add files, change some, remove some, break some."""
    for i in range(n):
        name, observation = archive / f"{round_:03d}_{i:05d}.fits", round_ * 100_000 + i
        name.write_bytes(pattern.replace(_OBS_ID, b"OBS_ID  = '%08d'" % observation))
    files = sorted(archive.iterdir())
    for file in generator.choice(np.array(files, dtype=object), n // 10, replace=False):
        fate = generator.integers(3)
        if fate == 0:
            file.unlink()
        elif fate == 1:
            file.write_bytes(file.read_bytes()[: int(generator.integers(1, 5000))])
        else:
            file.write_bytes(pattern.replace(_OBS_ID, b"OBS_ID  = '%08d'" % generator.integers(10**7, 10**8)))


def start(archive: Path, out: Path) -> subprocess.Popen[str]:
    """An ingest in a process group of its own, with all that Ray starts for it."""
    command = [sys.executable, "-m", "lexray.cli", "ingest", str(archive), "--out", str(out)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{out.parent}/mlflow-{time.time_ns()}.db"}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True, env=environment
    )


def content_of(table: Path) -> str:
    """Hash of a table's rows, whatever order and files they lie in."""
    rows = delta.read(str(table), columns=EVENTS.names, order="detection_id")
    return hashlib.sha256(repr(rows.to_pylist()).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Ingest under SIGKILL and a second writer.")
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "soak_ingest.json")
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    seen: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="lexray-soak-") as name:
        scratch = Path(name)
        archive, out = scratch / "archive", scratch / "events"
        archive.mkdir()
        pattern = write_pattern(scratch / "pattern.fits")
        modify_archive(archive, pattern, 0, arguments.files, generator)
        assert start(archive, out).wait() == 0
        for round_ in range(1, arguments.rounds + 1):
            before = content_of(out)
            modify_archive(archive, pattern, round_, arguments.files // 10, generator)
            runs = [start(archive, out) for _ in range(2 if round_ % 3 == 0 else 1)]
            killed_after = None
            if len(runs) == 1:
                killed_after = float(generator.uniform(2, 16))
                time.sleep(killed_after)
                if runs[0].poll() is None:
                    os.killpg(runs[0].pid, signal.SIGKILL)
            said = [run.communicate()[1] for run in runs]
            codes = [run.returncode for run in runs]
            for code, text in zip(codes, said, strict=True):
                if code not in (0, -signal.SIGKILL) and "another run wrote this table meanwhile" not in text:
                    sys.exit(f"round {round_}: exit code {code}\n{text}")
            if len(runs) == 2 and 0 not in codes:
                sys.exit(f"round {round_}: neither of two runs ended well: {codes}")
            # Killed after its commit a run has done its work all the same.
            committed = content_of(out) != before
            if 0 in codes and not committed:
                sys.exit(f"round {round_}: a run that ended well changed nothing")
            seen.append({"round": round_, "killed_after_s": killed_after, "codes": codes, "committed": committed})
        assert start(archive, out).wait() == 0
        assert start(archive, scratch / "anew").wait() == 0
        same = content_of(out) == content_of(scratch / "anew")
        files = len(list(archive.iterdir()))
    revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "soak": "ingest",
        "lexray": __version__,
        "revision": revision,
        "files_at_the_end": files,
        "rounds": seen,
        "rows_are_those_of_a_fresh_run": same,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if not same:
        sys.exit("the rows are not those of a fresh run")


if __name__ == "__main__":
    main()
