"""Held-out gain of the reference autodecoder on real event files, beside the best that each file alone can say.

python benchmarks/real_files.py [--data ../shared/data] [--autodecoder reference] [--thinnings 10] [--out FILE]

Each file's photons are thinned 80/20, several times. Beside the autodecoder, which is not fitted, stand Bayesian
Blocks, the best kernel and the total-variation fit, whose width and penalties were chosen on simulated sources. What
the autodecoder gains over the best of the three, file by file, has an interval: blocks of good time are drawn again,
within each file. Its own intervals are judged by held-out counts: the share of bins, of some 20 photons each, whose
number lies within the 68 % and the 95 % that its rate and its bounds predict.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from lexray.evaluation.cells import as_rate_model
from lexray.evaluation.heldout import HELD_OUT_SCALE, RateModel, thin
from lexray.evaluation.kernel import GaussianKernel
from lexray.evaluation.real_files import over_the_best, score_file
from lexray.evaluation.scoring import reconstructed_rates
from lexray.evaluation.total_variation import TotalVariationFit
from lexray.events.eventlist import EventList
from lexray.events.extraction.source_table import SourceTable
from lexray.events.reader import ReadOptions, read, read_events
from lexray.inference.autodecoder import Autodecoder, load_autodecoder
from lexray.simulation.population import simulate
from lexray.version import __version__

#: Name, file, and where in it the source is (RA, Dec in degrees, radius in arcsec); without, all of the file.
FILES: dict[str, tuple[str, tuple[float, float, float] | None]] = {
    "M82 (Chandra)": ("real-events/chandra_test.fits", None),
    "NGC 300 ULX1 (NICER)": ("real-events/ngc300nicer_bary.evt", None),
    "PSR J0218 (NICER)": ("real-events/J0218_nicer_2070030405_cleanfilt_cut_bary.evt", None),
    "XMM MOS1 field": ("real-fields/0201901401_mos1_clean_evts.fits", None),
    "XMM MOS1 source": ("real-fields/0201901401_mos1_clean_evts.fits", (149.5922, -11.0640, 30.0)),
    "PSR B1937 (NuSTAR)": ("real-fields/nu30101031002_cut.evt", None),
    "PSR B1509 (Chandra)": ("real-fields/acisf00754_evt2_cut60.fits.gz", None),
}
STEADY = ("M82 (Chandra)", "PSR B1509 (Chandra)")
BASELINES = ("bayesian_blocks", "kernel", "total_variation")
_COUNTS_A_BIN = 20


def read_file(path: Path, where: tuple[float, float, float] | None) -> EventList:
    """The file's events, or those of one source in it."""
    if where is None:
        return read_events(path)
    ra, dec, radius = (np.array([value]) for value in where)
    (source,) = read(path, ReadOptions(sources=SourceTable(["source"], ra, dec, radius, [None], [None]))).detections
    return source


def coverage(model: Autodecoder, events: EventList, thinnings: int) -> dict[str, float]:
    """Share of bins whose held-out counts lie within what the model predicts with 68 % and 95 %."""
    within: dict[float, list[float]] = {0.68: [], 0.95: []}
    random = np.random.default_rng(0)
    for seed in range(thinnings):
        fit, held = thin(events, seed)
        bins = int(np.clip(len(held) / _COUNTS_A_BIN, 4, 256))
        ((edges, rate, low, high),) = model.rates_with_intervals([fit], bins, 0.68)
        assert low is not None
        assert high is not None
        seconds = events.gti.exposure(edges)
        for band, (r, a, b) in enumerate(zip(rate, low, high, strict=True)):
            counts = np.histogram(held.time[held.band == band], edges)[0][seconds > 0]
            mean, spread = (np.log(r), np.log(b / a) / 2)
            draws = np.exp(mean + spread * random.normal(size=(400, bins)))[:, seconds > 0] * seconds[seconds > 0]
            draws *= HELD_OUT_SCALE
            # A number's place in what is predicted, at random within its own probability, is uniform.
            below, upto = (stats.poisson.cdf(n, draws).mean(0) for n in (counts - 1, counts))
            place = below + random.random(len(counts)) * (upto - below)
            for level, found in within.items():
                found += (np.abs(place - 0.5) < level / 2).tolist()
    return {f"{100 * level:.0f}": float(np.mean(found)) for level, found in within.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out gain on real event files.")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--autodecoder", default="reference")
    parser.add_argument("--thinnings", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "real_files.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.data.is_dir():
        parser.exit(2, f"{arguments.data}: the real event files are not there; name their folder with --data\n")
    model, chosen_on = load_autodecoder(arguments.autodecoder), simulate(400, 0).photons
    models: dict[str, RateModel] = {
        "autodecoder": lambda fits: reconstructed_rates(model, fits),
        "kernel": as_rate_model(GaussianKernel.best(chosen_on)),
        "total_variation": as_rate_model(TotalVariationFit.best(chosen_on)),
    }
    files: dict[str, dict[str, Any]] = {}
    measured = []
    for name, (path, where) in FILES.items():
        events = read_file(arguments.data / path, where)
        found = score_file(events, models, arguments.thinnings)
        measured.append(found)
        gain = {key: found.gain(key) for key in found.by_block}
        best = found.best(BASELINES)
        files[name] = {
            "photons": len(events),
            "good_times": len(events.gti),
            "gain": gain,
            "best": best,
            "over_the_best": gain["autodecoder"] - gain[best],
            "coverage_of_held_out_counts": coverage(model, events, arguments.thinnings),
        }
        print(name, {key: round(value, 4) for key, value in gain.items()}, files[name]["coverage_of_held_out_counts"])
    total, low, high = over_the_best(measured, "autodecoder", BASELINES)
    result = {
        "benchmark": "real_files",
        "lexray": __version__,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "autodecoder": model.name,
        "thinnings": arguments.thinnings,
        "summary": {
            "over_the_best": total,
            "over_the_best_95_percent": [low, high],
            "worst_file": min(one["over_the_best"] for one in files.values()),
            "worst_steady": min(files[name]["gain"]["autodecoder"] for name in STEADY),
        },
        "files": files,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
