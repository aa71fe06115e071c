"""How well a model under training predicts photons of detections that it is not trained on."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lexray.models.autodecoders.learner import Learner, keyed_generator
from lexray.models.autodecoders.photons import Photons, pieces
from lexray.models.autodecoders.sampler import VALIDATION, PartSource

#: Share of a detection's photons that the model sees; the others are scored.
_SEEN = 0.8
#: Detections scored at once.
_SCORED_AT_ONCE = 512


class HeldOutPhotons:
    """Validation detections of the parts that a worker owns, their photons split once.

    Parameters
    ----------
    source : PartSource
    seed : int
    """

    def __init__(self, source: PartSource, seed: int) -> None:
        self._source, self._seed = source, seed

    @cached_property
    def _pairs(self) -> list[tuple[Photons, Photons]]:
        # By part, so that which photons are held out does not depend on who owns it.
        pairs = [
            photons.thin(_SEEN, keyed_generator(self._seed, VALIDATION, part))
            for part, photons in sorted(self._source.validation().items())
            if len(photons)
        ]
        if not pairs:
            return []
        fit, held = (Photons.concatenate(side) for side in zip(*pairs, strict=True))
        return [(fit.select(rows), held.select(rows)) for rows in pieces(len(fit), _SCORED_AT_ONCE)]

    def score(self, learner: Learner[Any, Any], start: Tensor | None) -> Tensor:
        """Gains in nats and the photons they are of, over this worker's validation: f8[2]."""
        learner.network.eval()
        total = torch.zeros(2, dtype=torch.float64)
        for fit, held in self._pairs:
            gains = learner.gains(fit, held, start).double().sum().cpu()
            total += torch.stack([gains, torch.tensor(float(len(held.time)), dtype=torch.float64)])
        return total
