"""Scoring of one part of an events table: what each worker of `evaluate` does.

Imports little on purpose: each worker process pays for what this module imports.
"""

from collections.abc import Collection, Sequence
from functools import partial

import pyarrow.compute as pc

from lexray import storage
from lexray.autodecoding import load_autodecoder
from lexray.evaluation.baselines import bayesian_blocks, constant
from lexray.evaluation.heldout import PiecewiseRate, RateModel, Score, score_models
from lexray.evaluation.tables import read_rates
from lexray.events.eventlist import EventList, from_table


def score_part(
    events: str, part: int, sources: Collection[str], autodecoder: str | None, true_rates: str | None, seed: int
) -> list[Score]:
    """Held-out likelihoods of every model for the detections of `sources` in one part.

    Parameters
    ----------
    events : str
        Table.
    part : int
        Which part of it.
    sources : collection of str
        Those to score: the test sources.
    autodecoder : str or None
        Folder of a trained autodecoder.
    true_rates : str or None
        Rates that a simulator drew the photons from.
    seed : int
        Of the thinning.
    """
    wanted = (pc.field("part") == part) & pc.field("source_id").isin(list(sources))
    detections = [e for e in from_table(storage.dataset(events).to_table(filter=wanted)) if len(e)]
    if not detections:
        return []
    truth = read_rates(true_rates, detections)
    models: dict[str, RateModel] = {
        "constant": lambda fits: [constant(fit) for fit in fits],
        "bayesian_blocks": lambda fits: [bayesian_blocks(fit) for fit in fits],
        "true_rate": lambda fits: [truth.get(fit.detection_id) for fit in fits],
    }
    if autodecoder is not None:
        models["autodecoder"] = partial(reconstruct, autodecoder)
    return score_models(detections, models, {"true_rate_with_level": models["true_rate"]}, seed)


def reconstruct(autodecoder: str, events: Sequence[EventList]) -> list[PiecewiseRate]:
    """Rates that an autodecoder fits to event lists."""
    return [PiecewiseRate(edges, rate) for edges, rate in load_autodecoder(autodecoder).rates(events)]
