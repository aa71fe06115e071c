"""One pass of the network, or one fit, gives both the representation and the rate: the same as each alone."""

from typing import Any

import numpy as np
import pytest
import torch

from builders import event_list
from lexray.inference.autodecoder import Autodecoder
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.resnet.training import ResnetSettings
from lexray.models.autodecoders.splitnet.training import SplitnetSettings

SETTINGS: dict[str, tuple[Any, torch.Tensor | None]] = {
    "splitnet": (SplitnetSettings(width=4, blocks=1), None),
    "grid": (GridSettings(latent_dim=4, n_knots=16, width=8, fit_steps=5), torch.zeros(4)),
    "resnet": (ResnetSettings(latent_dim=3, width=16, blocks=2, octaves=4, n_steps=48, fit_steps=5), torch.zeros(3)),
}
EVENTS = [event_list(np.linspace(10.0, 1e4 - i, 40 + i), detection_id=str(i)) for i in range(3)]


@pytest.fixture(params=SETTINGS)
def model(request: pytest.FixtureRequest) -> Autodecoder:
    """A model as it is before its training: it answers as any other."""
    settings, start = SETTINGS[request.param]
    return Autodecoder(settings, settings.learner().network.state_dict(), start)


def test_both_at_once_are_what_each_is_alone(model: Autodecoder) -> None:
    level = 0.68 if model.has_intervals else None
    encoded, rates = model.encode_with_rates(EVENTS, 32, level)
    alone = model.encode(EVENTS)
    for name in ("latent", "log_rate", "nll"):
        np.testing.assert_array_equal(getattr(encoded, name), getattr(alone, name))
    for both, one in zip(rates, model.rates_with_intervals(EVENTS, 32, level), strict=True):
        for found, expected in zip(both, one, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_both_at_once_cost_the_network_what_the_representation_costs(
    model: Autodecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    forward = type(model.network).forward

    def counted(self: torch.nn.Module, *inputs: Any, **named: Any) -> Any:
        calls.append(1)
        return forward(self, *inputs, **named)

    def n_calls(work: Any) -> int:
        calls.clear()
        work()
        return len(calls)

    monkeypatch.setattr(type(model.network), "forward", counted)
    alone = n_calls(lambda: model.encode(EVENTS))
    both = n_calls(lambda: model.encode_with_rates(EVENTS, 32))
    # The published decoder is asked for the rates themselves, at other moments than those of the fit.
    assert both == alone + (1 if model.model_type == "resnet" else 0)
    assert alone > 0
