"""Training and encoding of every model type of autodecoder on a GPU, compared with what the device can do.

    python benchmarks/gpu.py [--model-types splitnet grid resnet] [--steps 300] [--quick] [--out FILE]

First the device's ceilings: a large copy for memory bandwidth, large matrix products for FLOPs in each precision.
Then each model type (`resnet` at the published size) trains for the same number of steps in each precision, compiled
or not, at its own batch and at a larger one: sources a second, FLOPs a second and bytes a second, each as a share of
the ceiling, and the held-out gain after these steps, so that a precision that harms the likelihood shows. FLOPs are
those of matrix products and convolutions; bytes are what the operators read and write one by one, an upper bound of
what leaves the chip and no figure for compiled code. Last, new sources a second, fitted and scored.

Writes benchmarks/results/gpu.json where there is a GPU. Where there is none it runs a tiny version on the CPU, says
so, and writes only what --out names.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.learner import Schedule, keyed_generator
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.resnet.training import ResnetSettings
from lexray.models.autodecoders.sampler import InMemoryParts
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.models.autodecoders.trainer import AutodecoderTrainer
from lexray.simulation.population import simulate
from lexray.version import __version__

RESULTS = Path(__file__).parent / "results" / "gpu.json"

# The published rates would teach nothing in so few steps, and latents would take minutes to fit; training is no faster.
MODEL_SETTINGS: dict[str, Schedule] = {
    "splitnet": SplitnetSettings(),
    "grid": GridSettings(),
    "resnet": ResnetSettings(learning_rate=3e-4, latent_learning_rate=1e-2, fit_steps=100, fit_learning_rate=0.04),
}
#: What new sources are encoded with, where it is not the same.
ENCODING: dict[str, dict[str, Any]] = {"resnet": {"fit_steps": 400, "fit_learning_rate": 0.01}}
TINY: dict[str, dict[str, Any]] = {
    "splitnet": {"batch_size": 8},
    "grid": {"batch_size": 8, "width": 32, "fit_steps": 5},
    "resnet": {"batch_size": 8, "width": 32, "n_steps": 64, "fit_steps": 5},
}
#: Precision of matrix products outside autocast, and the trainer's settings.
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("highest", {}),
    "tf32": ("high", {}),
    "bfloat16": ("highest", {"precision": "bfloat16"}),
    "float32 compiled": ("highest", {"compile": True}),
    "bfloat16 compiled": ("highest", {"compile": True, "precision": "bfloat16"}),
}
ON_CPU = ("float32", "bfloat16")
#: The larger batch, as a multiple of the model type's own.
LARGER = 16
_WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Training and encoding on a GPU beside its ceilings.")
    parser.add_argument("--model-types", nargs="+", choices=MODEL_SETTINGS, default=list(MODEL_SETTINGS))
    parser.add_argument("--modes", nargs="+", choices=MODES, help="all, or on a CPU float32 and bfloat16")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--train", type=int, default=4_000, help="simulated sources to train on")
    parser.add_argument("--new", type=int, default=256, help="simulated sources to encode and to score")
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    tiny = arguments.quick or not has_gpu
    device = torch.device("cuda" if has_gpu else "cpu")
    out = arguments.out or (RESULTS if has_gpu and not tiny else None)
    if tiny:
        arguments.steps, arguments.train, arguments.new = min(arguments.steps, 6), 64, 16
    modes = arguments.modes or (list(MODES) if has_gpu else list(ON_CPU))
    torch.backends.cudnn.allow_tf32 = False

    both = simulate(arguments.train + arguments.new, 0).photons
    train = both.select(torch.arange(arguments.train))
    new = both.select(torch.arange(arguments.train, len(both)))
    result: dict[str, Any] = {
        "benchmark": "gpu",
        "device": torch.cuda.get_device_name() if has_gpu else f"no GPU, ran on CPU: {cpu()}",
        "tiny": tiny,
        "lexray": __version__,
        "machine": f"{cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "sources": {"train": len(train), "new": len(new), "photons_each": round(len(both.time) / len(both))},
        "steps": arguments.steps,
        "ceilings": ceilings(device, tiny),
        "training": {},
        "encoding": {},
    }
    print(f"{result['device']}\n{json.dumps(result['ceilings'])}", flush=True)
    for model_type in arguments.model_types:
        settings = replace(MODEL_SETTINGS[model_type], seed=0, **(TINY[model_type] if tiny else {}))
        cells: dict[str, Any] = {}
        for batch in (settings.batch_size,) if tiny else (settings.batch_size, LARGER * settings.batch_size):
            for mode in modes:
                cell = attempt(
                    lambda s=replace(settings, batch_size=batch), m=mode: time_training(
                        s, m, train, new, arguments.steps, device, result["ceilings"]
                    )
                )
                cells[f"{mode}, batch {batch}"] = cell
                print(f"{model_type:9} {mode:18} batch {batch:5} {json.dumps(cell)}", flush=True)
        result["training"][model_type] = cells
        result["encoding"][model_type] = attempt(
            lambda s=replace(settings, **({} if tiny else ENCODING.get(model_type, {}))): encode(
                s, new, device, result["ceilings"]
            )
        )
        print(f"{model_type:9} encoding {json.dumps(result['encoding'][model_type])}", flush=True)
        if out:  # after each model type, so that a run cut short leaves what it had
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n")


def ceilings(device: torch.device, tiny: bool) -> dict[str, float]:
    """Bandwidth in GB/s of a large copy (read and written) and TFLOP/s of large matrix products, medians."""
    numbers, side = (2**22, 512) if tiny else (2**28, 8192)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    found = {"copy_GB_s": 2 * source.nbytes / repeat(lambda: target.copy_(source), device) / 1e9}
    for name, model_type, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
    ):
        if name == "tf32" and device.type == "cpu":
            continue
        a, b = (torch.randn(side, side, device=device, dtype=model_type) for _ in range(2))
        with matmul_precision(precision):
            found[f"{name}_TFLOP_s"] = 2 * side**3 / repeat(lambda a=a, b=b: a @ b, device) / 1e12
    return {name: rounded(value) for name, value in found.items()}


def repeat(work: Callable[[], object], device: torch.device, times: int = 20) -> float:
    """Median seconds of `work`, after three runs that do not count."""
    for _ in range(3):
        work()
    took = []
    for _ in range(times):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def time_training(
    settings: Schedule,
    mode: str,
    train: Photons,
    new: Photons,
    steps: int,
    device: torch.device,
    most: dict[str, float],
) -> dict[str, Any]:
    """One training: its speed, what it asks of the device, and the held-out gain that it ends with."""
    precision, changes = MODES[mode]
    per_epoch = max(1, round(len(train) / settings.batch_size))
    chosen = replace(settings, epochs=math.ceil(steps / per_epoch), part_streams=1, patience=0, **changes)
    with matmul_precision(precision):
        trainer = AutodecoderTrainer(chosen, InMemoryParts({0: train}, {0: new}), device)
        flops, bytes_moved = work_of_a_step(chosen, train, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = []
        for _ in range(steps):
            synchronise(device)
            start = time.perf_counter()
            trainer.run_step()
            synchronise(device)
            took.append(time.perf_counter() - start)
        step = statistics.median(took[min(_WARM_UP, steps // 2) :])
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
        drawn = batch_preparation_seconds(chosen, train, device)
    eager = not chosen.compile
    ceiling = most.get(f"{mode.split()[0]}_TFLOP_s")
    return {
        "sources_per_second": rounded(chosen.batch_size / step),
        "ms_per_step": rounded(1000 * step),
        # On the CPU, before the device has anything to do.
        "ms_drawing": rounded(1000 * drawn),
        "first_step_s": rounded(took[0]),
        "GFLOP_per_step": rounded(flops / 1e9),
        "TFLOP_s": rounded(flops / step / 1e12),
        "share_of_matmul": rounded(flops / step / 1e12 / ceiling) if ceiling else None,
        "GB_s": rounded(bytes_moved / step / 1e9) if eager else None,
        "share_of_copy": rounded(bytes_moved / step / 1e9 / most["copy_GB_s"]) if eager else None,
        "peak_GB": rounded(peak / 1e9) if peak else None,
        "loss_nats_per_photon": rounded(trainer.loss),
        "skipped_steps": trainer.progress.skipped_steps,
        "held_out": attempt(lambda: {"gain_bits_per_photon": rounded(trainer.evaluate())}),
    }


def work_of_a_step(settings: Schedule, train: Photons, device: torch.device) -> tuple[int, int]:
    """FLOPs and bytes of one step, run one operator after another."""
    trainer = AutodecoderTrainer(replace(settings, compile=False), InMemoryParts({0: train}), device)
    with Work() as work:
        trainer.run_step()
    return work.flops, work.bytes


class Work(TorchDispatchMode):
    """FLOPs of matrix products and convolutions, and the bytes that each operator reads and writes, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.flops += int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def batch_preparation_seconds(settings: Schedule, train: Photons, device: torch.device) -> float:
    """Median seconds of taking a batch out of a part and bringing it to the device."""
    learner = settings.learner()
    data = learner.prepare(train)
    generator = keyed_generator(0)
    rows = torch.randperm(len(train), generator=generator)[: settings.batch_size]
    return repeat(lambda: learner.draw(data, rows, generator).to(device), device, 5)


def encode(settings: Schedule, new: Photons, device: torch.device, most: dict[str, float]) -> dict[str, Any]:
    """New sources a second in float32, fitted where the model type needs it, and scored on a fifth of their photons."""
    learner = settings.learner()
    learner.network.to(device).eval()
    fit, held = new.thin(0.8, keyed_generator(1))
    start = torch.zeros(learner.latent_dim) if learner.latent_dim else None
    few = torch.arange(min(len(new), settings.batch_size))
    learner.gains(fit.select(few), held.select(few), start)
    synchronise(device)
    begin = time.perf_counter()
    learner.gains(fit, held, start)
    synchronise(device)
    took = time.perf_counter() - begin
    with Work() as work:
        learner.gains(fit.select(few), held.select(few), start)
    flops = work.flops / len(few) * len(new)
    return {
        "sources_per_second": rounded(len(new) / took),
        "ms_per_source": rounded(1000 * took / len(new)),
        "TFLOP_s": rounded(flops / took / 1e12),
        "share_of_matmul": rounded(flops / took / 1e12 / most["float32_TFLOP_s"]),
    }


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, or why it could not: a model type or mode that fails must not cost the others."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision == "high"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = False


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
