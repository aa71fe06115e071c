"""Where a training stands, when it must end, and the best network that an evaluation has seen."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class TrainingDiverged(Exception):
    """Steps without a finite loss or gradient kept coming.

    Parameters
    ----------
    detections : sequence of str
        Those that caused it, worst first; empty where no single one does.
    skipped : int
        Steps that were skipped so far.
    """

    def __init__(self, detections: Sequence[str], skipped: int) -> None:
        self.detections, self.skipped = list(detections), skipped
        shown = ", ".join(self.detections[:5]) + (f" and {len(detections) - 5} more" if len(detections) > 5 else "")
        whose = f"of {shown} " if shown else ""
        super().__init__(f"the loss or gradient {whose}is not finite; {skipped} steps were skipped")


@dataclass
class TrainingState:
    """Where a training stands, within an epoch too, the same on all workers.

    Attributes
    ----------
    step : int
        Steps done, skipped ones included.
    nats, photons : float
        Loss and photons of this epoch's steps.
    skipped_steps, skipped_in_a_row : int
        Steps whose loss or gradient was not finite.
    culprits : dict of str to int
        Skipped steps that each detection caused.
    evaluations_since_best : int
    best : dict
        What `AutodecoderTrainer.result` returns of the best evaluation; empty where there was none.
    """

    step: int = 0
    nats: float = 0.0
    photons: float = 0.0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    culprits: dict[str, int] = field(default_factory=dict)
    evaluations_since_best: int = 0
    best: dict[str, Any] = field(default_factory=dict)

    def accept(self, nats: float, photons: float) -> None:
        """A step was made."""
        self.nats, self.photons = self.nats + nats, self.photons + photons
        self.skipped_in_a_row = 0

    def skip(self, detections: Sequence[str], max_skipped: int) -> None:
        """A step was skipped, due to these detections.

        Raises
        ------
        TrainingDiverged
            If it was the `max_skipped`-th in a row, or due to one detection.
        """
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        for name in detections:
            self.culprits[name] = self.culprits.get(name, 0) + 1
        most = max(self.culprits.values(), default=0)
        if max(most, self.skipped_in_a_row) >= max_skipped:
            raise TrainingDiverged([name for name, n in self.culprits.items() if n == most], self.skipped_steps)

    def judge(self, gain: float, kept: Callable[[], Mapping[str, Any]]) -> None:
        """An evaluation gave `gain`; where it is the best so far, what `kept` returns goes with it."""
        self.evaluations_since_best += 1
        if math.isfinite(gain) and gain > self.best.get("gain", -math.inf):
            self.evaluations_since_best = 0
            self.best = {"gain": gain, "step": self.step, **kept()}
