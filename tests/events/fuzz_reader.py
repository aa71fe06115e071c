"""Fuzzing of the event reader, guided by the code that an input reaches: `make fuzz`, FUZZ_SECONDS=60 by default.

Whatever the bytes are, they are refused (`RefusedInput`) or give a reading whose account balances, in bounded memory.
An input that does otherwise is kept in ``build/fuzz`` as ``crash-…``; to see it again: ``python
tests/events/fuzz_reader.py FILE``. Inputs that reached new code stay in ``build/fuzz/corpus``, and the next run begins
with them.

The process grows by some kB an input, which are atheris's traces; the reader alone does not grow.
"""

import gzip
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import atheris
import numpy as np

from event_files import GOOD_PI, sky_keywords, write_event_file

with atheris.instrument_imports(include=["lexray.events"]):
    from lexray.errors import RefusedInput
    from lexray.events.extraction.source_table import SourceTable
    from lexray.events.reader import ReadOptions, read_content
    from lexray.events.segments import Segmentation

HOME = Path(__file__).parents[2] / "build" / "fuzz"
#: Address space of the process, bytes: allocating what a lying header promises fails at this.
MEMORY = 8 << 30
SOURCES = SourceTable(
    ["first", "second"], np.array([150.0, 150.001]), np.array([2.0, 2.0]), np.array([5.0, 9.0]), [None] * 2, [None] * 2
)
WANTED = (
    ReadOptions(),
    ReadOptions(sources=SOURCES, segments=Segmentation(20.0), min_events=2),
    ReadOptions(segments=Segmentation(7.0, "good"), no_screening=frozenset(GOOD_PI)),
)


def check(content: bytes) -> None:
    """Read a file in every way there is; what must hold, holds."""
    for wanted in WANTED:
        try:
            reading = read_content(content, "a.fits", wanted)
        except RefusedInput as refused:
            assert refused.reason  # noqa: PT017
            assert refused.detail  # noqa: PT017
            continue
        assert reading.n_in == sum(map(len, reading.detections)) + sum(reading.dropped.values())
        for events in reading.detections:
            assert np.all(np.isfinite(events.time))
            assert np.all(events.band >= 0)
            assert np.all(events.gti.contains(events.time))
            assert 0 < events.exposure <= events.gti.ontime * (1 + 1e-9)


# Inputs --------------------------------------------------------------------------------------------------------------


def write_seeds(corpus: Path) -> None:
    """Small good files of each mission, plain, gzipped and, where fpack is installed, compressed."""
    corpus.mkdir(parents=True, exist_ok=True)
    n = 40
    generator = np.random.default_rng(1)
    at = generator.normal(4096.5, 6.0, (2, n))
    flagged = generator.random(n) < 0.1
    for mission, pi in GOOD_PI.items():
        columns = {
            "time": np.sort(generator.uniform(990, 1110, n)),
            "pi": generator.integers(pi // 2, 2 * pi, n),
            "x": at[0].astype("f4"),
            "y": at[1].astype("f4"),
            {"xmm": "ccdnr", "erosita": "tm_nr"}.get(mission, "ccd_id"): generator.integers(3, 5, n).astype("i2"),
            {"xmm": "pattern", "erosita": "pat_typ"}.get(mission, "grade"): np.full(n, mission == "erosita", "i2"),
            {"xmm": "flag", "erosita": "flag", "nicer": "event_flags"}.get(mission, "status"): np.where(
                flagged, 1, 16 if mission == "nicer" else 0
            ).astype("u2"),
        }
        name = {"xmm": "STDGTI0{}", "nicer": "GTI"}.get(mission, "GTI{}")
        gti = {name.format(detector): [(1000.0, 1040.0 + detector), (1060.0, 1100.0)] for detector in (3, 4)}
        path = write_event_file(corpus / f"{mission}.fits", mission, columns, gti, sky_keywords(3, 4))
        (corpus / f"{mission}.fits.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    if shutil.which("fpack"):
        many = {"time": np.linspace(1000, 1100, 800), "pi": np.full(800, 100), "status": np.zeros(800, "i4")}
        with tempfile.TemporaryDirectory() as folder:
            plain = write_event_file(Path(folder) / "a.fits", columns=many, header={"FZTILELN": 300})
            subprocess.run(["fpack", "-table", str(plain)], check=True, timeout=60)
            (corpus / "fpack.fits").write_bytes(Path(f"{plain}.fz").read_bytes())


_CARD = re.compile(rb"[A-Z0-9_-]{1,8} *= ")
_NUMBERS = (
    "0", "1", "-1", "2", "3", "7", "8", "100", "255", "256", "32768", "65536", "2147483647", "2147483648",
    "9223372036854775808", "1000000000000", "-1000000000000", "1E30", "1E308", "1E999", "-1E300", "1E-300", "0.5",
    "NaN", "T", "",
)  # fmt: skip
_TEXTS = (
    "EVENTS", "GTI", "GTI4", "STDGTI04", "FLAREGTI3", "BINTABLE", "IMAGE", "1D", "1E", "1J", "1K", "1I", "1B", "1L",
    "8X", "32X", "0J", "0X", "0D", "2D", "8A", "1PB(9)", "1QB(9)", "999999999D", "time", "pi", "energy", "status",
    "ccd_id", "x", "START", "STOP", "GZIP_1", "GZIP_2", "RICE_1", "NOCOMPRESS", "d", "s", "eV", "keV", "RA---TAN",
    "DEC--TAN", "RA---SIN", "GLON-CAR", "FK4", "FK5", "CHANDRA", "ACIS", "HRC", "XMM", "EMOS1", "NICER", "SWIFT", "TM1",
)  # fmt: skip
_DOUBLES = (
    0.0,
    -1.0,
    1000.0,
    1050.5,
    1e9,
    1e18,
    -1e18,
    1e300,
    -1e300,
    5e-324,
    float("nan"),
    float("inf"),
    -float("inf"),
)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """A file changed where it matters: a keyword's value, a number of a table, or any bytes; under gzip likewise."""
    chance = random.Random(seed)
    if data.startswith(b"\x1f\x8b") and chance.random() < 0.8:
        try:
            inner = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            inner = b""
        if inner:
            return gzip.compress(mutate(inner, 1 << 20, seed + 1), 1)[:max_size]
    for _ in range(chance.choice((1, 1, 2, 4))):
        kind = chance.random()
        cards = [at for at in range(0, len(data) - 79, 80) if _CARD.match(data, at)] if kind < 0.6 else []
        if cards:
            at = chance.choice(cards)
            value = chance.choice(_NUMBERS) if chance.random() < 0.6 else f"'{chance.choice(_TEXTS)}'"
            key = data[at : at + 8] if chance.random() < 0.9 else data[(other := chance.choice(cards)) : other + 8]
            data = data[:at] + key + f"= {value:>20}".encode().ljust(72) + data[at + 80 :]
        elif kind < 0.8 and len(data) > 16:
            at = chance.randrange(0, len(data) - 8, 4)
            data = data[:at] + struct.pack(">d", chance.choice(_DOUBLES)) + data[at + 8 :]
        else:
            data = atheris.Mutate(data, max_size)
    return bytes(data[:max_size])


def main() -> None:
    """`fuzz_reader.py SECONDS` fuzzes for so long, `fuzz_reader.py FILE` reads one input."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    (given,) = sys.argv[1:]
    if not given.isdigit():
        check(Path(given).read_bytes())
        return
    corpus = HOME / "corpus"
    write_seeds(corpus)
    for path in sorted(corpus.iterdir()):  # and what an earlier run found
        check(path.read_bytes())
    options = [f"-max_total_time={given}", "-timeout=120", "-max_len=65536", "-len_control=0", "-rss_limit_mb=2048"]
    options += [f"-artifact_prefix={HOME}/", "-print_final_stats=1", str(corpus)]
    atheris.Setup([sys.argv[0], *options], check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
