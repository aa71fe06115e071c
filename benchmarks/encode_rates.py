"""`encode` with `rates`, one pass over the photons, against `encode` and `rates` one after the other.

python benchmarks/encode_rates.py --events build/demo/events --autodecoder build/demo/autodecoder [--rounds 5]
    [--workers 2] [--out benchmarks/results/encode_rates.json]

The three jobs take turns in one Ray session, each time from scratch and into new tables, and the ratio is of one round
each, so that other work of the machine affects all alike.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from reconstruction import machine

from lexray.inference.autodecoder import load_autodecoder
from lexray.jobs import encode, rates
from lexray.runtime import ray_session
from lexray.runtime.config import RayConfig, parse
from lexray.runtime.job import Job, execute
from lexray.runtime.progress import Progress
from lexray.tables import delta


def seconds(job: Job[Any], values: dict[str, Any]) -> float:
    """Time of a job's run, with its MLflow run and its commit."""
    return execute(job, parse(job.config, values), Progress()).seconds


def one_round(common: dict[str, Any], folder: Path) -> dict[str, float]:
    """Seconds of each job alone, and of both in one pass."""
    out = {name: str(folder / name) for name in ("latents", "rates", "both_latents", "both_rates")}
    return {
        "encode": seconds(encode.JOB, {**common, "out": out["latents"]}),
        "rates": seconds(rates.JOB, {**common, "out": out["rates"]}),
        "encode_with_rates": seconds(encode.JOB, {**common, "out": out["both_latents"], "rates": out["both_rates"]}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of encode with rates against the two jobs.")
    parser.add_argument("--events", default="build/demo/events")
    parser.add_argument("--autodecoder", default="build/demo/autodecoder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "encode_rates.json")
    arguments = parser.parse_args()

    rounds = []
    with ray_session.session(RayConfig()), tempfile.TemporaryDirectory() as temporary:
        common = {
            "events": arguments.events,
            "autodecoder": arguments.autodecoder,
            "workers": arguments.workers,
            "tracking": {"uri": f"sqlite:///{temporary}/mlflow.db"},
        }
        one_round(common, Path(temporary) / "first")  # imports and files are warm from here on
        for i in range(arguments.rounds):
            rounds.append(one_round(common, Path(temporary) / str(i)))
            print(rounds[-1], flush=True)
    ratios = [r["encode_with_rates"] / (r["encode"] + r["rates"]) for r in rounds]
    result = {
        "benchmark": "encode_rates",
        "machine": machine(),
        "detections": delta.dataset(arguments.events).count_rows(),
        "model": load_autodecoder(arguments.autodecoder).name,
        "workers": arguments.workers,
        "rounds": len(rounds),
        "median_seconds": {name: round(statistics.median(r[name] for r in rounds), 2) for name in rounds[0]},
        "over_the_two": round(statistics.median(ratios), 3),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
