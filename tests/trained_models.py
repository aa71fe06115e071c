"""Fixtures of the one simulated population of the test run, and of the models trained on it, some seconds each."""

import pytest

from lexray.inference.autodecoder import Autodecoder
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.sampler import InMemoryParts
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.models.autodecoders.trainer import AutodecoderTrainer
from lexray.simulation.population import SimulatedPopulation, simulate


@pytest.fixture(scope="session")
def population() -> SimulatedPopulation:
    """1,600 detections; models are trained with the first 800 at most."""
    return simulate(1600, 1)


@pytest.fixture(scope="session")
def trained_grid(population: SimulatedPopulation) -> AutodecoderTrainer:
    """A trainer of `grid` after its last epoch with the first 400 sources of the population."""
    settings = GridSettings(latent_dim=16, n_knots=64, width=64, epochs=25, batch_size=32, fit_steps=80)
    trainer = AutodecoderTrainer(settings, InMemoryParts({0: population.select(range(400)).photons}))
    while not trainer.finished:
        trainer.run_epoch()
    return trainer


@pytest.fixture(scope="session")
def splitnet(population: SimulatedPopulation) -> Autodecoder:
    """A `splitnet`, trained with the first 800 sources of the population."""
    settings = SplitnetSettings(
        width=8, epochs=12, batch_size=32, background_augmentation=0.3, warmup_steps=20, ema=0.98
    )
    return Autodecoder.fit(population.select(range(800)).photons, settings)


@pytest.fixture(scope="session")
def new(population: SimulatedPopulation) -> SimulatedPopulation:
    """240 sources of the population that no training saw."""
    return population.select(range(800, 1040))
