"""The loss and the held-out gain of each model's training, epoch by epoch, as their golden file has them.

A change of the loss, of the batches, of the optimiser or of the weights' averages shows here; a change of rounding, as
another number of threads makes it, does not.
"""

from typing import Any

import numpy as np
import pytest
import torch

from builders import ENERGIES, event_list
from golden_files import check_golden_curves
from lexray.events.eventlist import Background, EventList
from lexray.inference.photons import photons_of
from lexray.models.alignment.pairs import Pairs
from lexray.models.alignment.trainer import AlignmentSettings, AlignmentTrainer
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.resnet.training import ResnetSettings
from lexray.models.autodecoders.sampler import InMemoryParts
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.models.autodecoders.trainer import AutodecoderTrainer

SHARED: dict[str, Any] = {"epochs": 5, "batch_size": 12, "part_streams": 2, "warmup_steps": 4, "ema": 0.9}
FITS: dict[str, Any] = {"latent_dim": 4, "width": 16, "fit_steps": 10}
SETTINGS: dict[str, Schedule] = {
    "splitnet": SplitnetSettings(width=8, background_augmentation=0.3, **SHARED),
    "grid": GridSettings(n_knots=32, **FITS, **SHARED),
    "resnet": ResnetSettings(
        blocks=2, octaves=4, n_steps=48, learning_rate=1e-2, latent_learning_rate=5e-2, **FITS, **SHARED
    ),
}


def source(seed: int) -> EventList:
    """60 photons that crowd early or late; every third source lies above a known background."""
    random = np.random.default_rng(seed)
    time = 1e4 * random.beta(1 + seed % 4, 2, 60)
    region = Background(np.sort(random.uniform(0, 1e4, 40)), random.choice(ENERGIES, 40), 4.0)
    return event_list(time, random.choice(ENERGIES, 60), background=region if seed % 3 == 0 else None)


@pytest.mark.parametrize("model_type", SETTINGS)
def test_an_autodecoders_curve_is_that_of_the_golden_file(model_type: str) -> None:
    parts = {part: photons_of([source(100 * part + i) for i in range(n)], 3) for part, n in enumerate((20, 16, 24))}
    held = {part: photons_of([source(1000 + 100 * part + i) for i in range(6)], 3) for part in range(2)}
    trainer = AutodecoderTrainer(SETTINGS[model_type], InMemoryParts(parts, held))
    losses, gains = [], []
    while not trainer.finished:
        losses.append(trainer.run_epoch())
        gains.append(trainer.evaluate())
    curves = {f"{model_type}: loss, nats/photon": losses, f"{model_type}: held-out gain, bits/photon": gains}
    check_golden_curves("loss_curves.json", curves, rel=2e-3, abs=2e-4)


def test_the_alignments_curve_is_that_of_the_golden_file() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(160, 6))
    xray, text = (
        torch.tensor(np.tanh(shared @ random.normal(size=(6, n))) + 0.3 * random.normal(size=(160, n))).float()
        for n in (11, 24)
    )
    train, val = (
        Pairs(xray[rows], torch.arange(len(xray[rows]) + 1), text[rows]) for rows in (slice(120), slice(120, 160))
    )
    trainer = AlignmentTrainer(AlignmentSettings(epochs=8, batch_size=64, text_components=12), train, val, 3)
    while not trainer.finished:
        trainer.run_epoch()
    curves = {f"alignment: {name}": [row[name] for row in trainer.history] for name in ("train/loss", "val/loss")}
    check_golden_curves("loss_curves.json", curves, rel=2e-3, abs=2e-4)
