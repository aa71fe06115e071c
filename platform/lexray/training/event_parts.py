"""What of an events table a training reads: planned once, from names and header columns; photons part by part."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import torch

from lexray.events import validate
from lexray.inference.photons import PHOTON_COLUMNS, photons_of_table
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.sampler import PartSize
from lexray.models.autodecoders.training_range import TrainingRange
from lexray.tables import delta
from lexray.tables.files import filesystem
from lexray.tables.list_columns import floats, stack_lists
from lexray.training import splits

_COLUMNS = ("detection_id", *PHOTON_COLUMNS)
#: Parts that a sample is spread over, where there are so many.
_SAMPLED_PARTS = 8


@dataclass(frozen=True)
class PlannedPart:
    """One part of the table.

    Attributes
    ----------
    files : list of str
        Those of the version that was planned with: what is committed meanwhile does not reach the training.
    train, val : list of str
        Detections to train on and to score.
    n_photons : int
        Of those to train on.
    """

    files: list[str]
    train: list[str]
    val: list[str]
    n_photons: int


@dataclass(frozen=True)
class TrainingPlan:
    """Parts of a training, what is wrong with detections that it leaves out, and what those to train on are like."""

    parts: dict[int, PlannedPart]
    left_out: dict[str, str]
    held: TrainingRange | None

    def __len__(self) -> int:
        """Detections to train on and to score."""
        return sum(len(part.train) + len(part.val) for part in self.parts.values())

    def of_worker(self, rank: int, n_workers: int, settings: Schedule) -> "EventsTable":
        """Whole streams of parts for one of the workers."""
        mine = {
            number: part for number, part in self.parts.items() if number % settings.part_streams % n_workers == rank
        }
        return EventsTable(mine, settings.n_bands)


def plan_training(events: str, split_seed: int, n_bands: int, max_validation: int) -> TrainingPlan:
    """Who trains and who validates.

    Parameters
    ----------
    events : str
        Table.
    split_seed : int
        As for `splits.read_splits`.
    n_bands : int
        Energy bands of the model; detections with others are left out.
    max_validation : int
        Of more detections to validate on, those with the smallest hash of their names are taken.
    """
    files = delta.part_files(events)
    rows = delta.read(events, [*validate.HEADER_COLUMNS, "frame_time", "part"], order="detection_id")
    left_out = validate.faults(rows, n_bands)
    rows = validate.without(rows, left_out)
    assignment = splits.read_splits(events, split_seed)
    split = np.array([assignment[source] for source in rows["source_id"].to_pylist()], dtype=object)
    part, names = rows["part"].to_numpy(), np.array(rows["detection_id"].to_pylist(), dtype=object)
    n_events = rows["n_events"].fill_null(0).to_numpy()
    scored = set(sorted(names[split == "val"].tolist(), key=_hash)[:max_validation])
    parts = {}
    for number, paths in files.items():
        train, val = ((part == number) & (split == which) for which in ("train", "val"))
        chosen = [name for name in names[val].tolist() if name in scored]
        parts[number] = PlannedPart(paths, names[train].tolist(), chosen, int(n_events[train].sum()))
    return TrainingPlan(parts, left_out, _range_of(rows.filter(pa.array(split == "train"))))


def _range_of(rows: pa.Table) -> TrainingRange | None:
    if not rows.num_rows:
        return None
    counts, ontime, frame_time = (
        torch.from_numpy(floats(rows[name]).copy()) for name in ("n_events", "ontime", "frame_time")
    )
    edges = torch.from_numpy(stack_lists(rows["bands"]))
    return TrainingRange.of_values(counts, ontime, frame_time, edges[:, [0, -1]])


class EventsTable:
    """A `PartSource` for the trainer: parts of an events table, read when they are needed.

    Attributes
    ----------
    emptied : dict of str
        What is wrong with the photons of detections that were met; they train as if they had none.
    """

    def __init__(self, parts: Mapping[int, PlannedPart], n_bands: int) -> None:
        self._parts, self._n_bands = parts, n_bands
        self._faults: dict[tuple[int, str], dict[str, str]] = {}
        self.emptied: dict[str, str] = {}

    @property
    def sizes(self) -> dict[int, PartSize]:
        """As `PartSource.sizes`."""
        return {number: PartSize(len(part.train), part.n_photons) for number, part in self._parts.items()}

    def read(self, part: int) -> tuple[Photons, Sequence[str]]:
        """As `PartSource.read`."""
        wanted = self._parts[part].train
        return self._photons(part, "train", wanted), wanted

    def validation(self) -> dict[int, Photons]:
        """As `PartSource.validation`."""
        return {number: self._photons(number, "val", part.val) for number, part in self._parts.items() if part.val}

    def _photons(self, part: int, split: str, wanted: Sequence[str]) -> Photons:
        """Photons of the detections `wanted`, which are in the order of their names."""
        chosen = pa.array(wanted, pa.string())
        rows = [
            rows.filter(pc.is_in(rows["detection_id"], chosen))
            for rows in (_read(path, _COLUMNS) for path in self._parts[part].files)
        ]
        table = pa.concat_tables(rows).sort_by("detection_id")
        if (part, split) not in self._faults:  # the same rows come again in every epoch
            self._faults[part, split] = validate.faults(table, self._n_bands)
        return photons_of_table(self._emptied(table, self._faults[part, split]), self._n_bands)

    def _emptied(self, rows: pa.Table, faults: Mapping[str, str]) -> pa.Table:
        """The rows, the invalid ones without events."""
        if not faults:
            return rows
        self.emptied |= faults
        fine = pc.invert(pc.is_in(rows["detection_id"], pa.array(list(faults), pa.string())))
        for name in ("time", "energy", "bkg_time", "bkg_energy", "bkg_scale"):
            empty = pa.scalar([] if name in ("time", "energy") else None, rows[name].type)
            rows = rows.set_column(rows.column_names.index(name), name, pc.if_else(fine, rows[name], empty))
        return rows


def sample(plan: TrainingPlan, n_bands: int, most: int) -> Photons:
    """Detections that are trained on, `most` (at least 1) or all if there are fewer, from a few parts.

    Names begin with the mission: parts, and detections within these, are chosen by hashes of theirs.
    """
    parts: dict[int, PlannedPart] = {}
    names: list[str] = []
    for number in sorted(plan.parts, key=lambda number: _hash(str(number))):
        if len(parts) < _SAMPLED_PARTS or len(names) < most:
            parts[number] = plan.parts[number]
            names += parts[number].train
    chosen = set(sorted(names, key=_hash)[:most])
    parts = {number: replace(p, train=[n for n in p.train if n in chosen]) for number, p in parts.items()}
    source = EventsTable(parts, n_bands)
    return Photons.concatenate([source.read(number)[0] for number, part in parts.items() if part.train])


def _read(path: str, columns: Sequence[str]) -> pa.Table:
    system, file = filesystem(path)
    return pyarrow.parquet.ParquetFile(file, filesystem=system).read(list(columns))


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
