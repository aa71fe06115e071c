"""Scoring of an events table, part by part on Ray.

Imports little on purpose: each worker process pays for what this module imports.
"""

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lexray.evaluation import baselines, tables
from lexray.evaluation.heldout import DetectionScore, PiecewiseRate, RateModel, score_models
from lexray.events import validate
from lexray.events.arrow import from_table
from lexray.events.eventlist import EventList
from lexray.inference.autodecoder import Autodecoder, load_autodecoder
from lexray.runtime.map_parts import results_of_parts
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.files import resolve_path


def score_sources(
    events: str,
    sources: Collection[str],
    models: Mapping[str, RateModel],
    true_rates: str | None,
    seed: int,
    progress: Progress,
) -> tuple[list[DetectionScore], dict[str, str]]:
    """Held-out likelihoods of every model over `sources`, one Ray task a part of the events table.

    Parameters
    ----------
    events : str
        Table.
    sources : collection of str
        Those to score: the test sources.
    models : mapping
        Name to model, in addition to those that `score_part` always has; they are sent to the workers.
    true_rates : str or None
        Rates that a simulator drew the photons from.
    seed : int
        Of the thinning.
    progress : Progress
        Counts detections.

    Returns
    -------
    list of DetectionScore
    dict
        What is wrong with each detection that was left out.
    """
    rows = delta.read(events, ["source_id"])["source_id"].to_pylist()
    truth = None if true_rates is None else resolve_path(true_rates)
    n_bands = validate.usual_bands(events)
    scores: list[DetectionScore] = []
    left_out: dict[str, str] = {}
    with progress.task("detections scored", total=sum(source in sources for source in rows)) as task:
        for part, invalid in results_of_parts(score_part, events, n_bands, sorted(sources), dict(models), truth, seed):
            scores += part
            left_out |= invalid
            task.advance(len(part))
    return sorted(scores, key=lambda score: score.detection_id), left_out


def score_part(
    events: str,
    part: int,
    n_bands: int,
    sources: Collection[str],
    models: Mapping[str, RateModel],
    true_rates: str | None,
    seed: int,
) -> tuple[list[DetectionScore], dict[str, str]]:
    """Held-out likelihoods for the detections of `sources` in one part; parameters and results as in `score_sources`.

    A constant rate, Bayesian Blocks and the true rate are always among the models. Detections that no model of
    `n_bands` energy bands can take are left out.
    """
    wanted = (pc.field("part") == part) & pc.field("source_id").isin(pa.array(sources, pa.string()))
    valid, left_out = valid_events(events, wanted, n_bands)
    detections = [e for e in valid if len(e)]
    if not detections:
        return [], left_out
    truth = tables.read_rates(true_rates, detections)
    standard_models: dict[str, RateModel] = {
        "constant": lambda fits: [baselines.constant_rate(fit) for fit in fits],
        "bayesian_blocks": lambda fits: [baselines.bayesian_blocks(fit) for fit in fits],
        "true_rate": lambda fits: [truth.get(fit.detection_id) for fit in fits],
    }
    with_level = {"true_rate_with_level": standard_models["true_rate"]}
    return score_models(detections, {**standard_models, **models}, with_level, seed), left_out


def valid_events(events: str, where: pc.Expression, n_bands: int) -> tuple[list[EventList], dict[str, str]]:
    """Event lists of some rows of an events table, and what is wrong with those that no model of `n_bands` can take."""
    rows = delta.dataset(events).to_table(filter=where)
    left_out = validate.faults(rows, n_bands)
    return from_table(validate.without(rows, left_out)), left_out


def reconstruct(autodecoder: str, events: Sequence[EventList]) -> list[PiecewiseRate]:
    """Rates that the autodecoder in a folder fits to event lists."""
    return reconstructed_rates(load_autodecoder(autodecoder), events)


def reconstructed_rates(model: Autodecoder, events: Sequence[EventList]) -> list[PiecewiseRate]:
    """Rates that an autodecoder fits to event lists."""
    return [PiecewiseRate(edges, rate) for edges, rate in model.rates_at_full_resolution(events)]
