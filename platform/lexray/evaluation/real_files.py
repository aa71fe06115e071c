"""Held-out gain on single event files: what a model says of photons that nobody simulated.

A file's photons are thinned several times; each model's gain is kept by blocks of good time, which are drawn again for
intervals: what varies slowly makes neighbouring photons alike.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from lexray.array_types import Float64s
from lexray.errors import LexrayError
from lexray.evaluation.baselines import bayesian_blocks, constant_rate
from lexray.evaluation.heldout import HELD_OUT_SCALE, PiecewiseRate, RateModel, counts_per_band, interval_95, thin
from lexray.events import validate
from lexray.events.eventlist import Bands, EventList, GoodTimeIntervals
from lexray.events.reader import read_events
from lexray.runtime.map_parts import results_of
from lexray.runtime.progress import Progress
from lexray.tables import delta

#: Blocks of good time of a file, and how often they are drawn again.
_BLOCKS, _DRAWS = 40, 4_000
#: Photons of a file, at least: of fewer, the held-out ones are too few for a gain.
_FEWEST = 20


@dataclass(frozen=True)
class FileGain:
    """Gains on one file.

    Attributes
    ----------
    name : str
        Of the file, without its folder.
    n_photons, n_held : int
        In all, and held out of all thinnings together.
    by_block : dict of str to f8[blocks]
        By model, over a constant rate, in nats: the sum over the thinnings.
    """

    name: str
    n_photons: int
    n_held: int
    by_block: dict[str, Float64s]

    def gain(self, model: str) -> float:
        """In bits per held-out photon."""
        return float(self.by_block[model].sum() / self.n_held / np.log(2))

    def best(self, models: Collection[str]) -> str:
        """The one of `models` that gains most."""
        return max(models, key=self.gain)

    def interval(self, model: str, seed: int = 0) -> tuple[float, float]:
        """95 % interval of `gain`."""
        return interval_95(_drawn_again(self.by_block[model], np.random.default_rng(seed)) / self.n_held / np.log(2))


def read_files(paths: Sequence[str], events: str, splits: Mapping[str, str]) -> tuple[list[EventList], list[str]]:
    """Read event files, each as one detection, but for those that a training saw.

    Parameters
    ----------
    paths : sequence of str
    events : str
        Table that the models were trained on; a mission's energy bands are those that it has there.
    splits : mapping
        Source → split.

    Returns
    -------
    list of EventList
    list of str
        What was left out and why, for a person.

    Raises
    ------
    LexrayError
        If a file cannot be read, or has another number of energy bands than the table.
    """
    if not paths:
        return [], []
    rows = delta.read(events, ["sha256", "source_id", "mission", "bands"]).to_pylist()
    trained_on = {row["sha256"] for row in rows if splits.get(row["source_id"]) in ("train", "val")}
    # Tables hold edges with six digits.
    bands = {row["mission"]: Bands(tuple(float(f"{e:.6g}") for e in row["bands"])) for row in rows if row["bands"]}
    n_bands = validate.usual_bands(events)
    found, left_out = [], []
    for path in paths:
        read = read_events(path, bands)
        name = Path(path).name
        if len(read.bands) != n_bands:
            raise LexrayError(f"{path}: {len(read.bands)} energy bands, the detections of {events} have {n_bands}")
        if read.sha256 in trained_on:
            left_out.append(f"real file {name}: a training saw it")
        elif len(read) < _FEWEST:
            left_out.append(f"real file {name}: has {len(read)} photons, too few to hide some")
        else:
            found.append(read)
    return found, left_out


def score_files(
    events: Sequence[EventList], models: Mapping[str, RateModel], thinnings: int, seed: int, progress: Progress
) -> list[FileGain]:
    """`score_file` of each of several files, one Ray task each, by name."""
    found = []
    with progress.task("real files scored", total=len(events)) as task:
        for one in results_of(score_file, [(one,) for one in events], dict(models), thinnings, seed):
            found.append(one)
            task.advance(1)
    named: dict[str, FileGain] = {}
    for one in sorted(found, key=lambda one: (one.name, one.n_photons)):
        name = one.name
        while name in named:
            name += "_"
        named[name] = replace(one, name=name)
    return list(named.values())


def score_file(events: EventList, models: Mapping[str, RateModel], thinnings: int, seed: int = 0) -> FileGain:
    """Thin one detection several times, and score each model, and Bayesian Blocks, on what was held out.

    Parameters
    ----------
    events : EventList
        All photons of a file, or of a source in it.
    models : mapping
        Name to model; each sees only the photons to fit, and all get the same rule for the level.
    thinnings : int
    seed : int
        Of the thinnings.
    """
    tried = {"bayesian_blocks": lambda fits: [bayesian_blocks(fit) for fit in fits], **models}
    total = {name: np.zeros(_BLOCKS) for name in tried}
    n_held = 0
    for number in range(thinnings):
        fit, held = thin(events, thinnings * seed + number)
        blocks = _by_block(held)
        flat = _log_likelihoods(constant_rate(fit), fit, blocks)
        for name, model in tried.items():
            (rate,) = model([fit])
            if rate is None:
                raise ValueError(f"{name} has no rate for {events.detection_id}")
            total[name] += _log_likelihoods(rate, fit, blocks) - flat
        n_held += len(held)
    return FileGain(Path(events.file).name, len(events), n_held, total)


def over_the_best(files: Sequence[FileGain], model: str, baselines: Collection[str]) -> tuple[float, float, float]:
    """A model's gain less the best baseline's of each file, over all files: bits per photon, and its 95 % interval."""
    random = np.random.default_rng(0)
    differences = [file.by_block[model] - file.by_block[file.best(baselines)] for file in files]
    bits = sum(file.n_held for file in files) * np.log(2)
    drawn = np.sum([_drawn_again(difference, random) for difference in differences], axis=0)
    return float(sum(difference.sum() for difference in differences) / bits), *interval_95(drawn / bits)


def _by_block(events: EventList) -> list[EventList]:
    """The events in blocks of equal good time."""
    edges = events.gti.time_at(np.linspace(0.0, events.gti.ontime, _BLOCKS + 1))
    edges[-1] = events.gti.stop[-1]
    blocks = []
    for begin, end in pairwise(edges):
        inside = (events.time >= begin) & ((events.time < end) | (end == edges[-1]))
        gti = events.gti.intersect(GoodTimeIntervals(begin, end))
        blocks.append(replace(events, time=events.time[inside], energy=events.energy[inside], gti=gti))
    return blocks


def _log_likelihoods(rate: PiecewiseRate, fit: EventList, blocks: Sequence[EventList]) -> Float64s:
    """Of the held-out photons of each block, f8[blocks] in nats, at the level of the fitted ones."""
    level = rate.at_level(counts_per_band(fit), fit.gti).scaled(HELD_OUT_SCALE)
    return np.array([level.log_likelihood(block) for block in blocks])


def _drawn_again(blocks: Float64s, random: np.random.Generator) -> Float64s:
    """Sums of as many blocks drawn with replacement, f8[draws]."""
    return np.asarray(blocks[random.integers(len(blocks), size=(_DRAWS, len(blocks)))].sum(1))
