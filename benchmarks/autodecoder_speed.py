"""Speed of the autodecoders: training beside PPAD at its published size, time to a gain, encoding, and how both grow.

python benchmarks/autodecoder_speed.py [--parts training reach encode growth] [--model-types splitnet grid] [--out FILE]

``training``: sources per second through loss, gradient and optimiser, each model type at its own batch; the types
take turns, and the ratios are of one round each, so that other work of the machine affects all alike. ``reach``:
seconds of training, on 4,000 sources of `lexray.simulation.population`, until it predicts new sources with three
quarters of what the true rate gains. ``encode``: milliseconds a new source, in batches. ``growth``: seconds and peak
memory of one epoch over 1,000, 10,000 and 100,000 sources of 300 photons that lie in part files, each in a process of
its own. All on one core.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from reconstruction import default_settings, machine, training_speed

from lexray.evaluation.heldout import score_models
from lexray.inference.autodecoder import Autodecoder
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.sampler import InMemoryParts, PartSize
from lexray.models.autodecoders.trainer import AutodecoderTrainer
from lexray.simulation.population import SimulatedPopulation, simulate
from lexray.version import __version__

#: Sources in a part file.
_PART = 1000
#: Share of the true rate's gain that `time_to_gain` waits for.
_SHARE = 0.75


def training(model_types: Sequence[str], rounds: int) -> dict[str, Any]:
    """Sources a second of every model type and of PPAD as published."""
    photons = simulate(512, 0, spread=0.0).photons
    settings = {model_type: default_settings(model_type, 0) for model_type in [*model_types, "resnet"]}
    found = [{model_type: training_speed(s, photons) for model_type, s in settings.items()} for _ in range(rounds)]
    return {
        "sources_per_s": {model_type: statistics.median(f[model_type] for f in found) for model_type in settings},
        "over_resnet": {
            model_type: statistics.median(f[model_type] / f["resnet"] for f in found) for model_type in model_types
        },
        "batch": {model_type: s.batch_size for model_type, s in settings.items()},
    }


def time_to_gain(model_types: Sequence[str], seconds: float, epochs: int | None) -> dict[str, Any]:
    """Seconds of training until new sources are predicted well enough, and what was reached."""
    both = simulate(4_600, 1)
    train, new = both.photons.select(torch.arange(4_000)), both.select(range(4_000, 4_600))
    goal = _SHARE * _ceiling(new)
    found: dict[str, Any] = {"goal_bits_per_photon": goal}
    for model_type in model_types:
        settings = default_settings(model_type, 0)
        settings = replace(settings, epochs=epochs or settings.epochs, patience=0)
        trainer = AutodecoderTrainer(settings, InMemoryParts({0: train}, {0: new.photons}))
        took, gain = 0.0, 0.0
        while took < seconds and gain < goal and not trainer.finished:
            start = time.perf_counter()
            trainer.run_epoch()
            took += time.perf_counter() - start
            gain = trainer.evaluate()
        found[model_type] = {"seconds": took, "gain": gain, "reached": gain >= goal, "epochs": trainer.epoch}
    return found


def _ceiling(new: SimulatedPopulation) -> float:
    from lexray.evaluation.baselines import constant_rate
    from lexray.evaluation.heldout import gain

    models = {
        "constant": lambda fits: [constant_rate(e) for e in fits],
        "true_rate": lambda fits: [new.rate(i) for i in range(len(fits))],
    }
    scores = score_models(new.event_lists(), models)
    true, flat = ([s.log_likelihood[name] for s in scores] for name in ("true_rate", "constant"))
    return gain(true, flat, [s.n_held for s in scores])


def encode(model_types: Sequence[str], rounds: int) -> dict[str, Any]:
    """Milliseconds a new source; how well the network was trained makes no difference to it."""
    photons = simulate(2_000, 2, spread=0.0).photons
    found = {}
    for model_type in model_types:
        model = Autodecoder.fit(photons.select(torch.arange(256)), replace(default_settings(model_type, 0), epochs=1))
        model.encode_photons(photons.select(torch.arange(256)))
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            model.encode_photons(photons)
            times.append(time.perf_counter() - start)
        found[model_type] = 1000 * statistics.median(times) / len(photons)
    return found


@dataclass(frozen=True)
class PartFiles:
    """A `TargetSource` of part files."""

    folder: Path
    n: int

    @property
    def sizes(self) -> Mapping[int, PartSize]:
        """Of each part."""
        counts = json.loads((self.folder / "counts.json").read_text())
        return {part: PartSize(_PART, counts[part]) for part in range(self.n // _PART)}

    def read(self, part: int) -> tuple[Photons, Sequence[str]]:
        """One part's photons."""
        photons: Photons = torch.load(self.folder / f"{part}.pt", weights_only=False)  # written by this script
        return photons, [f"{part}:{row}" for row in range(_PART)]

    def validation(self) -> Mapping[int, Photons]:
        """None."""
        return {}


def scaling(model_types: Sequence[str], sizes: Sequence[int]) -> dict[str, Any]:
    """Seconds and peak memory of an epoch, by model type and number of sources."""
    found: dict[str, Any] = {model_type: {} for model_type in model_types}
    with tempfile.TemporaryDirectory(prefix="lexray-bench-") as name:
        folder = Path(name)
        counts = []
        for part in range(max(sizes) // _PART):
            photons = simulate(_PART, 100 + part, spread=0.0).photons
            torch.save(photons, folder / f"{part}.pt")
            counts.append(len(photons.time))
        (folder / "counts.json").write_text(json.dumps(counts))
        for model_type in model_types:
            for n in sizes:
                code = f"import autodecoder_speed as a; a.scaling_in_subprocess({model_type!r}, {name!r}, {n})"
                done = subprocess.run(
                    [sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True
                )
                found[model_type][str(n)] = json.loads(done.stdout.splitlines()[-1])
    return found


def scaling_in_subprocess(model_type: str, folder: str, n: int) -> None:
    """What `scaling` runs in a process of its own."""
    torch.set_num_threads(1)
    trainer = AutodecoderTrainer(default_settings(model_type, 0), PartFiles(Path(folder), n))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    trainer.run_epoch()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gib = {"peak_gib": peak / 2**20, "before_gib": before / 2**20}
    print(json.dumps({"seconds": seconds, "ms_a_source": 1000 * seconds / n, **gib}))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the autodecoders.")
    parser.add_argument("--parts", nargs="+", default=["training", "reach", "encode", "growth"])
    parser.add_argument("--model-types", nargs="+", default=["splitnet", "grid"], help="compared with resnet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0, help="most that `time_to_gain` trains a model type")
    parser.add_argument("--epochs", type=int, help="epochs of `time_to_gain`, along which learning rates fall")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "autodecoder_speed.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

    before = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    result = {**before, "benchmark": "autodecoder_speed", "lexray": __version__, "machine": machine(), "threads": 1}
    measures = {
        "training": lambda: training(arguments.model_types, arguments.rounds),
        "reach": lambda: time_to_gain(arguments.model_types, arguments.seconds, arguments.epochs),
        "encode": lambda: encode(arguments.model_types, arguments.rounds),
        "growth": lambda: scaling(arguments.model_types, arguments.sizes),
    }
    for part in arguments.parts:
        load = os.getloadavg()[0]
        result[part] = _rounded({**measures[part](), "load_average_at_start": load})
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        print(part, json.dumps(result[part]), flush=True)


if __name__ == "__main__":
    main()
