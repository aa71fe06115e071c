"""How well each model reconstructs rates: held-out gain on new sources, as a share of the true rate's.

python benchmarks/reconstruction.py [--seeds 0 1 2] [--models NAME …] [--quick] [--ppad-seconds 900] [--out FILE]

For each seed 4,000 simulated sources to train on and 2,000 new ones to score, `lexray.simulation.population`. A fifth
of each new source's photons is hidden, and every model is judged on the same. What the baselines choose (a kernel's
width, penalties), they choose on 400 of the training's sources. ``resnet`` is the published PPAD made smaller, width
128 and 512 steps of the integral, and gets so many epochs as fit into a stated number of seconds. Models that give
intervals are asked for 68 % and 95 % from all photons of the new sources; the coverage is the share of good time
and bands at which the true rate lies within. Each model and seed is measured in this process, one thread, and its
figures are put into the file at once, so that a run can be made in parts.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lexray.evaluation.baselines import bayesian_blocks, constant_rate
from lexray.evaluation.cells import as_rate_model
from lexray.evaluation.count_bins import COUNT_BINS, count_bin_of
from lexray.evaluation.heldout import DetectionScore, PiecewiseRate, RateModel, gain, gain_interval, score_models
from lexray.evaluation.intervals import RateInterval, coverage, rate_intervals
from lexray.evaluation.kernel import GaussianKernel
from lexray.evaluation.scoring import reconstructed_rates
from lexray.evaluation.total_variation import TotalVariationFit
from lexray.events.eventlist import EventList
from lexray.models.autodecoders.photons import Photons
from lexray.simulation.population import LIGHT_CURVE_TYPES, SimulatedPopulation, simulate
from lexray.version import __version__

#: Training sources on which baselines choose.
_BASELINE_SOURCES = 400
#: How many sources each of the two sets has.
_TRAIN, _NEW = 4_000, 2_000
LEVELS = (0.68, 0.95)
#: New sources that a model is scored on which takes seconds for each.
_SCORED_ON = {"resnet": 96}


@dataclass(frozen=True)
class FittedModel:
    """A model with rates, what it chose, and intervals at a level, None where it has none."""

    rates: RateModel
    note: str = ""
    intervals: Callable[[Sequence[EventList], float], list[RateInterval] | None] = lambda events, level: None


# --- the one place that knows how autodecoders are made


def default_settings(model_type: str, seed: int) -> Any:
    """Settings of a kind of autodecoder at its defaults."""
    from lexray.inference.autodecoder import SETTINGS_OF_TYPE

    return SETTINGS_OF_TYPE[model_type](seed=seed)


def train_autodecoder(settings: Any, photons: Photons) -> FittedModel:
    """A trained autodecoder."""
    from lexray.inference.autodecoder import Autodecoder

    model = Autodecoder.fit(photons, settings)
    parameters = sum(p.numel() for p in settings.learner().network.parameters())
    return fitted_model(model, f"{model.name}, {parameters} parameters, {settings.epochs} epochs")


def fitted_model(model: Any, note: str) -> FittedModel:
    """An autodecoder that is trained already."""
    return FittedModel(
        lambda events: reconstructed_rates(model, events),
        note,
        lambda events, level: rate_intervals(model, events, level),
    )


def training_speed(settings: Any, photons: Photons, seconds: float = 3.0) -> float:
    """Sources a second through loss, gradient and optimiser at the settings' batch, after a first step."""
    learner = settings.learner()
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=1e-5)
    generator = torch.Generator().manual_seed(0)
    data = learner.prepare(photons)
    learner.network.train()

    def step() -> None:
        rows = torch.randint(len(photons), (settings.batch_size,), generator=generator)
        sample = learner.draw(data, rows, generator)
        latent = (
            torch.zeros(settings.batch_size, learner.latent_dim, requires_grad=True) if learner.latent_dim else None
        )
        optimizer.zero_grad()
        torch.autograd.backward(learner.losses(sample, latent).sum())
        optimizer.step()

    step()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return float(settings.batch_size / statistics.median(times))


# --- models by name


def make_constant(_: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    return FittedModel(lambda events: [constant_rate(e) for e in events])


def make_blocks(_: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    return FittedModel(lambda events: [bayesian_blocks(e) for e in events])


def make_kernel(photons: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    chosen = GaussianKernel.best(photons.select(torch.arange(min(_BASELINE_SOURCES, len(photons)))), seed)
    return FittedModel(as_rate_model(chosen), str(chosen))


def make_total_variation(photons: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    chosen = TotalVariationFit.best(photons.select(torch.arange(min(_BASELINE_SOURCES, len(photons)))), seed)
    return FittedModel(as_rate_model(chosen), str(chosen))


def make_grid(photons: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    return train_autodecoder(default_settings("grid", seed), photons)


def make_splitnet(photons: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    return train_autodecoder(default_settings("splitnet", seed), photons)


def make_reference(_: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    from lexray.inference.autodecoder import REFERENCE, load_autodecoder

    model = load_autodecoder(REFERENCE)
    return fitted_model(model, f"{model.name}, as it comes with Lexray: no training")


def make_resnet(photons: Photons, seed: int, arguments: argparse.Namespace) -> FittedModel:
    # The published rates, 1e-5 and 1e-4, are for days.
    small = replace(
        default_settings("resnet", seed), width=128, n_steps=512, learning_rate=1e-3, latent_learning_rate=1e-2
    )
    epochs = max(1, math.floor(arguments.ppad_seconds * training_speed(small, photons) / len(photons)))
    return train_autodecoder(replace(small, epochs=epochs), photons)


MODELS = {
    "constant": make_constant,
    "bayesian_blocks": make_blocks,
    "kernel": make_kernel,
    "total_variation": make_total_variation,
    "grid": make_grid,
    "splitnet": make_splitnet,
    "reference": make_reference,
    "resnet": make_resnet,
}


def measure(
    name: str, train: SimulatedPopulation, new: SimulatedPopulation, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Figures of one model and seed."""
    start = time.perf_counter()
    model = MODELS[name](train.photons, seed, arguments)
    trained = time.perf_counter() - start
    if name in _SCORED_ON:
        new = new.select(range(min(_SCORED_ON[name], len(new))))
    events = new.event_lists()
    took: list[float] = []

    def timed(fits: Sequence[EventList]) -> Sequence[PiecewiseRate | None]:
        begin = time.perf_counter()
        rates = model.rates(fits)
        took.append(time.perf_counter() - begin)
        return rates

    models: dict[str, RateModel] = {
        "constant": lambda fits: [constant_rate(e) for e in fits],
        "true_rate": lambda fits: [new.rate(i) for i in range(len(fits))],
        "model": timed,
    }
    scores = score_models(events, models, seed=seed)
    kinds = np.array([LIGHT_CURVE_TYPES[k] for k in new.light_curve_type])
    bins = count_bin_of([s.n_events for s in scores])
    low, high = gain_interval(*_likelihoods(scores, "model"), [s.source_id for s in scores], seed)
    result = {
        "gain": _gain(scores, "model"),
        "gain_95_percent": [low, high],
        "ceiling": _gain(scores, "true_rate"),
        "share_of_ceiling": _share(scores),
        "by_kind": {
            kind: _gain_and_ceiling([s for s, k in zip(scores, kinds, strict=True) if k == kind])
            for kind in LIGHT_CURVE_TYPES
        },
        "by_counts": {
            name: _gain_and_ceiling(some)
            for i, name in enumerate(COUNT_BINS)
            if (some := [s for s, b in zip(scores, bins, strict=True) if b == i])
        },
        "train_seconds": trained,
        "ms_a_new_source": 1000 * took[0] / len(events),
        "scored_on": len(events),
        "note": model.note,
    }
    truth = [new.rate(i) for i in range(len(new))]
    for level in LEVELS:
        bounds = model.intervals(events, level)
        if bounds is not None:
            found = coverage(truth, bounds, [e.gti for e in events])
            result[f"coverage_{100 * level:.0f}"] = float(found.mean())
            result[f"coverage_{100 * level:.0f}_by_kind"] = {
                k: float(found[kinds == k].mean()) for k in LIGHT_CURVE_TYPES
            }
    return _rounded(result)


def _likelihoods(scores: Sequence[DetectionScore], model: str) -> tuple[list[float], list[float], list[int]]:
    ours, flat = ([s.log_likelihood[name] for s in scores] for name in (model, "constant"))
    return ours, flat, [s.n_held for s in scores]


def _gain(scores: Sequence[DetectionScore], model: str) -> float:
    return gain(*_likelihoods(scores, model))


def _share(scores: Sequence[DetectionScore]) -> float | None:
    ceiling = _gain(scores, "true_rate")
    return _gain(scores, "model") / ceiling if ceiling > 1e-3 else None


def _gain_and_ceiling(scores: Sequence[DetectionScore]) -> dict[str, Any]:
    found = {"n": len(scores), "gain": _gain(scores, "model"), "ceiling": _gain(scores, "true_rate")}
    return {**found, "share_of_ceiling": _share(scores)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def machine() -> dict[str, Any]:
    """What this ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__}


def summary(seeds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each model's share of the ceiling on every seed, with its gain, cost and coverage as means over them."""
    found = {}
    for name in MODELS:
        mine = [models[name] for models in seeds.values() if name in models]
        if mine:
            means = {
                key: statistics.fmean(m[key] for m in mine)
                for key in ("gain", "ceiling", "train_seconds", "ms_a_new_source", "coverage_68", "coverage_95")
                if all(key in m for m in mine)
            }
            found[name] = _rounded({"share_of_ceiling": [m["share_of_ceiling"] for m in mine], **means})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out gain of every model on eight types of simulated sources.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--train", type=int, default=_TRAIN, help="sources to train on")
    parser.add_argument("--new", type=int, default=_NEW, help="new sources to score")
    parser.add_argument("--quick", action="store_true", help="400 sources to train on, 200 new ones, PPAD for 30 s")
    parser.add_argument("--ppad-seconds", type=float, default=900.0, help="what the small PPAD may train")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reconstruction.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.train, arguments.new, arguments.ppad_seconds = 400, 200, 30.0
        arguments.out = arguments.out.with_stem(f"{arguments.out.stem}_quick")
    torch.set_num_threads(1)

    sizes = {"train": arguments.train, "new": arguments.new}
    before = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    seeds: dict[str, dict[str, Any]] = before["seeds"] if before.get("sources") == sizes else {}
    for seed in arguments.seeds:
        both = simulate(arguments.train + arguments.new, seed)
        train, new = both.select(range(arguments.train)), both.select(range(arguments.train, len(both)))
        for name in arguments.models:
            found = measure(name, train, new, seed, arguments)
            seeds.setdefault(str(seed), {})[name] = found | {"lexray": __version__, "machine": machine()}
            result = {
                "benchmark": "reconstruction",
                "sources": sizes,
                "threads": 1,
                "summary": summary(seeds),
                "seeds": seeds,
            }
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
            share = found["share_of_ceiling"] or 0.0
            print(f"seed {seed} {name:16} gain {found['gain']:.4f} of {found['ceiling']:.4f} ({share:.1%})", flush=True)


if __name__ == "__main__":
    main()
