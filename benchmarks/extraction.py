"""Seconds to take thousands of sources out of a field of a million events, with their backgrounds.

python benchmarks/extraction.py [--sources 5000] [--events 1000000] [--out benchmarks/results/extraction.json]

Sources lie at random, so that most apertures overlap with another. Beside it the plain way, a distance from every
source to every event, on a part of the sources and scaled up; it gives neither backgrounds nor shares of overlapping
apertures.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import fitsio
import numpy as np

from lexray.events.extraction.apertures import extract
from lexray.events.extraction.exposed_area import ExposedArea
from lexray.events.extraction.source_table import SourceTable
from lexray.events.extraction.wcs import Plane
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import scan

_SIDE = 4096.0
_PIXEL = 0.492 / 3600
_RADIUS = 5.0
_LOOPED = 50


def make_plane(x: np.ndarray, y: np.ndarray) -> Plane:
    """Plane of an event file with Chandra's pixels around (150°, 30°)."""
    header = {"TCTYP1": "RA---TAN", "TCTYP2": "DEC--TAN", "TCRVL1": 150.0, "TCRVL2": 30.0, "TCRPX1": _SIDE / 2,
              "TCRPX2": _SIDE / 2, "TCDLT1": -_PIXEL, "TCDLT2": _PIXEL, "RADESYS": "ICRS"}  # fmt: skip
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:
        with fitsio.FITS(file.name, "rw", clobber=True) as fits:
            fits.write(None)
            fits.write_table([x, y], names=["x", "y"], extname="EVENTS", header=header)
        content = Path(file.name).read_bytes()
    plane = Plane.of(BinaryTable(scan(content)[1], content), "x", "y")
    assert plane is not None
    return plane


def brute_force(x: np.ndarray, y: np.ndarray, at_x: np.ndarray, at_y: np.ndarray, radius: float) -> list[np.ndarray]:
    """Events of each source, by the distance to all of them."""
    return [np.flatnonzero((x - a) ** 2 + (y - b) ** 2 <= radius**2) for a, b in zip(at_x, at_y, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of source extraction.")
    parser.add_argument("--sources", type=int, default=5000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "extraction.json")
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    x, y = generator.uniform(0, _SIDE, (2, arguments.events))
    plane = make_plane(x, y)
    at_x, at_y = generator.uniform(0, _SIDE, (2, arguments.sources))
    ra, dec = plane.to_sky(at_x, at_y)
    n = arguments.sources
    nothing: list[str | None] = [None] * n
    sources = SourceTable([f"S{i}" for i in range(n)], ra, dec, np.full(n, _RADIUS), nothing, nothing)
    ours, plain = [], []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        found = extract(x, y, plane, sources, ExposedArea.of(x, y))
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        brute_force(x, y, at_x[:_LOOPED], at_y[:_LOOPED], _RADIUS / plane.pixel_arcsec)
        plain.append((time.perf_counter() - start) * n / _LOOPED)
    result = {
        "benchmark": "extraction",
        "machine": {"cores": os.cpu_count(), "cpu": platform.processor() or platform.machine()},
        "sources": n,
        "events": arguments.events,
        "sources_found": len(found),
        "overlapping": sum("overlap" in aperture.flags for aperture in found),
        "extract_seconds": round(statistics.median(ours), 2),
        "plain_way_seconds_extrapolated": round(statistics.median(plain), 2),
        "plain_over_extract": round(statistics.median(plain) / statistics.median(ours), 2),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
