"""`lexray train reference`: train the reference autodecoder on a simulated population, drawn while it trains."""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lexray.inference.autodecoder import WEIGHTS, Autodecoder
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.sampler import PartSize
from lexray.models.autodecoders.splitnet.known_rates import TYPICAL_COUNTS, KnownRateSettings
from lexray.runtime import ray_session
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobResult
from lexray.simulation.population import simulate
from lexray.simulation.wide_population import PARTS, WidePopulation
from lexray.tables import delta
from lexray.tables.files import require_local_path, sha256_of
from lexray.training.autodecoder import AutodecoderTraining
from lexray.training.streamed_parts import StreamedParts
from lexray.version import __version__

#: Keys that the model card and the training's record name.
_IN_CARD = {"detections", "width", "batch_size", "learning_rate", "workers", "use_gpu", "seed"}
_CARD = """# Lexray's reference autodecoder

A `splitnet` that reconstructs the rate of one X-ray detection from its photons, without a fit. It was trained on
{n:,} simulated detections, none of which it met twice (`lexray train reference`, `make reference`); no real
photon was used.

- **Made for** detections of one source by an imager or a timing instrument: 10 to 30,000 photons, 100 s to 250 ks with
  any pattern of good time, three bands of 0.2–5, 0.5–7 or 3–79 keV, backgrounds up to ten times the source.
- **Not for** pulsations shorter than two cells (256 to 2,048 of them share the time), pile-up, or detections of several
  sources. A detection unlike the population has `flags`, which docs/autodecoder.md lists.
- **Trained with** {keys};
  on {machine[cores]} cores ({machine[cpu]}), by Lexray {lexray}. `training.json` has the curve.
- **How well it does** is in `real_files.json` and `reconstruction.json` in `benchmarks/results`.
- **sha256** of `autodecoder.safetensors`: {sha256}
"""
#: Detections of another simulator that are scored, and the seed they are drawn with.
_HELD, _HELD_SEED = 1_000, 1_000_003


class TrainReferenceConfig(JobConfig):
    """Configuration of `lexray train reference`."""

    out: Annotated[str, AfterValidator(require_local_path)] = Field(
        description="folder of the autodecoder, on a local disk"
    )
    detections: int = Field(700_000, ge=1_000, description="to draw and train on, each once")
    width: int = Field(KnownRateSettings.width, ge=1, description="hidden units of a layer")
    batch_size: int = Field(KnownRateSettings.batch_size, ge=1, description="detections a step, over all workers")
    learning_rate: float = Field(KnownRateSettings.learning_rate, gt=0, description="network's highest learning rate")
    workers: int = Field(1, ge=1, description="training workers, each with one CPU; drawing takes others")
    use_gpu: bool = Field(False, description="give each worker a GPU")
    checkpoints: int = Field(20, ge=1, description="checkpoints on the way, each with a validation")
    max_failures: int = Field(2, ge=0, description="restarts after a worker died, from the last checkpoint")
    seed: int = Field(0, ge=0, description="seed of weights, batches and detections")

    @property
    def settings(self) -> KnownRateSettings:
        """What the library takes."""
        return KnownRateSettings(
            width=self.width,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            part_streams=self.workers,
            seed=self.seed,
        )


def run(config: TrainReferenceConfig, context: JobContext) -> JobResult:
    """Train, and write the autodecoder."""
    settings, population = config.settings, WidePopulation(config.seed)
    training = AutodecoderTraining(
        settings=settings,
        name=delta.digest([__version__, asdict(settings), config.detections]),
        checkpoints=str(Path(f"{config.out}.checkpoints").resolve()),
        workers=config.workers,
        use_gpu=config.use_gpu,
        checkpoint_every=1 / config.checkpoints,
        max_failures=config.max_failures,
    )
    if config.force:
        training.forget()
    parts = StreamedParts(
        population.n_parts(config.detections),
        lambda part: PartSize(n := population.size(part)[1], round(n * TYPICAL_COUNTS)),
        population,
        simulate(_HELD, _HELD_SEED).photons,
    )
    with ray_session.session(config.ray):
        result = training.fit(parts, context.run, context.progress)
    # Of the parts that come after those of the training: as many as have every number of cells that it saw.
    unseen = [population.photons(parts.n_parts + part) for part in range(min(len(PARTS), parts.n_parts))]
    Autodecoder(settings, result["network"]).calibrated(Photons.concatenate(unseen)).save(config.out)
    _describe(config, context, result)
    training.forget()
    return JobResult(counts=result["counts"], metrics=result["metrics"], accepted=result["counts"]["detections"])


def _describe(config: TrainReferenceConfig, context: JobContext, result: dict[str, Any]) -> None:
    """Write the training's curve, configuration and machine, and the model card."""
    folder = Path(config.out)
    curve = {name: list(context.run.curve(name).items()) for name in ("loss", "val_gain", "sources_per_s")}
    training = {
        "lexray": __version__,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "configuration": config.model_dump(include=_IN_CARD),
        "counts": result["counts"],
        "sha256": sha256_of(folder / WEIGHTS),
        "curve": curve,
    }
    (folder / "training.json").write_text(json.dumps(training, indent=1) + "\n")
    (folder / "README.md").write_text(model_card(training))


def model_card(training: dict[str, Any]) -> str:
    """Text for people on an autodecoder, of what `training.json` says of its training."""
    keys = ", ".join(f"{key}={value}" for key, value in training["configuration"].items())
    return _CARD.format(keys=keys, n=training["counts"]["detections"], **training)


JOB = Job("train reference", TrainReferenceConfig, run, inputs=(), positional=())
