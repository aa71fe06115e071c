"""Pairs of a detection and its source's text: the pairs that the alignment learns from, by split."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lexray.errors import LexrayError
from lexray.models.alignment.pairs import Pairs
from lexray.tables import delta
from lexray.tables.list_columns import finite_rows, vectors
from lexray.tables.quarantine import Refusal, not_finite
from lexray.training.splits import read_split_keys, split

#: Fewer sources than this cannot be negatives of one another, or tell one epoch from the next.
MIN_SOURCES = {"train": 16, "val": 4}


@dataclass(frozen=True)
class PairedTables:
    """What `read_pairs` found.

    Attributes
    ----------
    train, val : Pairs
        Sources with at least one detection and a text. Those of the test split are not here: no training sees them.
    n_bands : int
        How many of the X-ray features are log-rates.
    made_with : dict
        Names of the models that made the tables: 'autodecoder' and 'text_model'.
    refusals : list of Refusal
        Detections and texts with missing or non-finite numbers, which were left out.
    n_rows : int
        Detections and texts in all.
    """

    train: Pairs
    val: Pairs
    n_bands: int
    made_with: dict[str, str]
    refusals: list[Refusal]
    n_rows: int


def read_pairs(latents: str, text_embeddings: str, events: str, split_seed: int = 0) -> PairedTables:
    """Join latents and text vectors by source, and split the sources.

    Sources within 1″ of one another are one here, so that none is another's negative.

    Parameters
    ----------
    latents, text_embeddings : str
        Tables.
    events : str
        Table whose names and positions decide the split; the same in every job.
    split_seed : int
        The configuration's key, the same in every job.

    Raises
    ------
    LexrayError
        If a table holds vectors of several models or lengths, or too few sources have both sides.
    """
    key_of = read_split_keys(events)
    detections = delta.read(latents, ["detection_id", "source_id", "model", "latent", "log_rate"], order="detection_id")
    texts = delta.read(text_embeddings, ["source_id", "model", "embedding"], order="source_id")
    made_with = {"autodecoder": _one_model(latents, detections), "text_model": _one_model(text_embeddings, texts)}
    latent, log_rate = vectors(latents, detections, "latent"), vectors(latents, detections, "log_rate")
    xray, text = np.concatenate([latent, log_rate], axis=1), vectors(text_embeddings, texts, "embedding")

    has_text, has_xray = finite_rows(text), finite_rows(xray)
    text_row: dict[str, int] = {}
    for row, source in enumerate(texts["source_id"].to_pylist()):
        if has_text[row] and source in key_of:
            text_row.setdefault(key_of[source], row)
    rows_of: dict[str, list[int]] = {}
    for row, source in enumerate(detections["source_id"].to_pylist()):
        if has_xray[row] and key_of.get(source) in text_row:
            rows_of.setdefault(key_of[source], []).append(row)

    found = {}
    for name in MIN_SOURCES:
        keys = sorted(key for key in rows_of if split(key, split_seed) == name)
        if len(keys) < MIN_SOURCES[name]:
            raise LexrayError(
                f"{len(keys)} sources of the {name} split have both a detection in {latents} and a text in "
                f"{text_embeddings}, at least {MIN_SOURCES[name]} are needed; do the tables share their source_id "
                f"values with {events}?"
            )
        found[name] = _pairs(xray, text, [rows_of[key] for key in keys], [text_row[key] for key in keys])
    refused_xray, refused_text = detections.filter(pa.array(~has_xray)), texts.filter(pa.array(~has_text))
    refusals = not_finite(latents, "detection_id", refused_xray["detection_id"].to_pylist())
    refusals += not_finite(text_embeddings, "source_id", refused_text["source_id"].to_pylist())
    return PairedTables(
        found["train"], found["val"], log_rate.shape[1], made_with, refusals, len(detections) + len(texts)
    )


def _one_model(table: str, rows: pa.Table) -> str:
    names = sorted(str(name) for name in rows["model"].unique().to_pylist())
    if len(names) > 1:
        raise LexrayError(f"{table}: vectors of several models, {', '.join(names)}, do not compare; write it with one")
    return names[0] if names else ""


def _pairs(
    xray: NDArray[np.float32], text: NDArray[np.float32], detections: list[list[int]], texts: list[int]
) -> Pairs:
    return Pairs(
        xray=torch.from_numpy(xray[np.concatenate(detections)]),
        offsets=torch.from_numpy(np.cumsum([0, *map(len, detections)])),
        text=torch.from_numpy(text[texts]),
    )
