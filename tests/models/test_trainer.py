"""The trainer of every type of model: batches, workers, checkpoints, and numbers that are not finite."""

import io
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from builders import BANDS, ENERGIES, event_list
from lexray.events.eventlist import EventList, GoodTimeIntervals
from lexray.inference.photons import photons_of
from lexray.models.autodecoders.grid.training import GridSettings
from lexray.models.autodecoders.learner import Schedule
from lexray.models.autodecoders.photons import Photons
from lexray.models.autodecoders.sampler import InMemoryParts, PartStream
from lexray.models.autodecoders.state import TrainingDiverged
from lexray.models.autodecoders.trainer import AutodecoderTrainer

GRID = GridSettings(
    latent_dim=4, n_knots=16, width=16, epochs=4, batch_size=12, part_streams=4, warmup_steps=4, fit_steps=10
)


def source_of(seed: int, n: int = 60) -> EventList:
    random = np.random.default_rng(seed)
    time = 1e4 * random.beta(1 + seed % 4, 2, n)
    return event_list(time, random.choice(ENERGIES, n), detection_id=f"d{seed}", source_id=f"s{seed}")


def parts_of(sizes: Sequence[int]) -> dict[int, Photons]:
    return {p: photons_of([source_of(100 * p + i) for i in range(n)], 3) for p, n in enumerate(sizes)}


def owned(parts: Mapping[int, Photons], rank: int, workers: int, part_streams: int) -> dict[int, Photons]:
    return {p: photons for p, photons in parts.items() if p % part_streams % workers == rank}


@dataclass(frozen=True)
class Sums:
    """Sample of `Toy`: counts by band of each detection and noise that the draw added."""

    counts: Tensor
    noise: Tensor

    @staticmethod
    def concatenate(several: Sequence["Sums"]) -> "Sums":
        return Sums(torch.cat([s.counts for s in several]), torch.cat([s.noise for s in several]))

    def to(self, device: torch.device) -> "Sums":
        return Sums(self.counts.to(device), self.noise.to(device))


@dataclass(frozen=True)
class ToySettings(Schedule):
    """Of `Toy`; `poison` is a number of photons whose loss, or its gradient alone, is not finite."""

    poison: int = -1
    poison_gradient: bool = False
    dim: int = 2
    epochs: int = 6
    batch_size: int = 8
    part_streams: int = 2
    warmup_steps: int = 2
    learning_rate: float = 1e-2

    def learner(self) -> "Toy":
        return Toy(self)


class Toy:
    """Squared distance of log-counts from what a linear network makes of the latent."""

    model_type = "toy"

    def __init__(self, settings: ToySettings) -> None:
        self.settings, self.latent_dim = settings, settings.dim
        self.network: nn.Module = nn.Linear(max(settings.dim, 1), 3)
        nn.init.constant_(self.network.weight, 0.1)  # type: ignore[arg-type]
        nn.init.zeros_(self.network.bias)  # type: ignore[arg-type]

    def prepare(self, photons: Photons) -> Tensor:
        return photons.counts.float()

    def draw(self, data: Tensor, rows: Tensor, generator: torch.Generator) -> Sums:
        return Sums(data[rows], torch.rand(len(rows), 1, generator=generator))

    def losses(self, sample: Sums, latent: Tensor | None) -> Tensor:
        said = self.network(sample.noise if latent is None else latent)
        loss = (sample.counts.log1p() + sample.noise - said).square().sum(1)
        bad = sample.counts.sum(1) == self.settings.poison
        if self.settings.poison_gradient:  # finite where it is 0, with a slope that is not
            return loss.index_add(0, bad.nonzero()[:, 0], (said[bad].sum(1) * 0).abs().sqrt())
        return torch.where(bad, torch.nan, loss)

    def gains(self, fit: Photons, held: Photons, start: Tensor | None) -> Tensor:
        device = next(self.network.parameters()).device
        guess = self.network(torch.zeros(1, max(self.latent_dim, 1), device=device) if start is None else start[None])
        return -(fit.counts.float().log1p() - guess.detach()).square().sum(1).double()


# --- streams of parts ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    steps=st.integers(1, 15),
    number=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
def test_an_epoch_of_a_stream_gives_each_row_once(
    reader: ThreadPoolExecutor, sizes: list[int], steps: int, number: int, epoch: int
) -> None:
    stream = PartStream(number, 4, dict(enumerate(sizes)), lambda part: part, reader, seed=1)
    slices = [list(stream.slices(epoch, step, steps)) for step in range(steps)]
    seen = [(part, row) for one in slices for part, data, rows in one for row in rows.tolist() if data == part]
    assert sorted(seen) == [(part, row) for part, n in enumerate(sizes) for row in range(n)]
    lengths = [sum(len(rows) for _, _, rows in one) for one in slices]
    assert max(lengths) - min(lengths) <= 1


def test_a_stream_shuffles_parts_and_rows_again_each_epoch(reader: ThreadPoolExecutor) -> None:
    stream = PartStream(0, 1, dict.fromkeys(range(8), 20), lambda part: part, reader, seed=1)

    def passes(epoch: int) -> list[tuple[int, list[int]]]:
        return [(part, rows.tolist()) for part, _, rows in stream.slices(epoch, 0, 1)]

    assert passes(0) == passes(0)
    assert [part for part, _ in passes(0)] != [part for part, _ in passes(1)]
    assert dict(passes(0))[3] != dict(passes(1))[3]


def test_a_stream_keeps_two_parts_and_reads_each_once_an_epoch(reader: ThreadPoolExecutor) -> None:
    loads: list[int] = []
    alive: list[int] = []
    most = 0

    class Part:
        def __init__(self, number: int) -> None:
            nonlocal most
            self.number = number
            loads.append(number)
            alive.append(number)
            most = max(most, len(alive))

        def __del__(self) -> None:
            alive.remove(self.number)

    stream = PartStream(0, 1, dict.fromkeys(range(6), 5), Part, reader, seed=0)
    for epoch in range(2):
        for step in range(10):
            for slice_ in stream.slices(epoch, step, 10):
                del slice_
    assert most <= 3  # two held, and the one that the loop above has just let go of
    assert len(loads) <= 13  # the thirteenth is read ahead for the third epoch
    assert sorted(loads[:6]) == list(range(6))

    loads.clear()
    small = PartStream(0, 1, {0: 5, 1: 5}, Part, reader, seed=0)
    for epoch in range(5):
        for _ in small.slices(epoch, 0, 1):
            pass
    assert sorted(loads) == [0, 1]  # what fits stays


# --- workers ------------------------------------------------------------------------------------------------------


def _worker(rank: int, workers: int, port: int, folder: str, steps: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    parts, held = parts_of([9, 5, 7, 8, 6]), parts_of([3, 2, 4])
    share = InMemoryParts(owned(parts, rank, workers, GRID.part_streams), owned(held, rank, workers, GRID.part_streams))
    trainer = AutodecoderTrainer(GRID, share)
    curve = [trainer.run_step() for _ in range(steps)]
    gain = trainer.evaluate()
    result = {"curve": curve, "gain": gain, "bytes": trainer.bytes_reduced, "state": trainer.state()}
    torch.save({**result, "latents": trainer.latent_states(), "totals": trainer.n_detections}, f"{folder}/{rank}.pt")
    try:
        poisoned = ToySettings(poison=60, part_streams=4)  # every detection of the second worker's parts
        trainer = AutodecoderTrainer(poisoned, InMemoryParts(owned(parts, rank, workers, 4) if rank else {}))
        while not trainer.finished:
            trainer.run_epoch()
    except TrainingDiverged as error:
        Path(f"{folder}/{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[str]]:
    """What two real processes made of the data that `one_worker` has alone, and how both diverged."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(_worker, (2, port, str(folder), 20), nprocs=2)
    return (
        [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)],
        [(folder / f"{rank}.txt").read_text() for rank in range(2)],
    )


def test_two_workers_train_as_one(two_workers: tuple[list[dict[str, Any]], list[str]]) -> None:
    first, second = two_workers[0]
    alone = AutodecoderTrainer(GRID, InMemoryParts(parts_of([9, 5, 7, 8, 6]), parts_of([3, 2, 4])))
    curve = [alone.run_step() for _ in range(20)]
    assert curve[0] != curve[-1]
    assert first["curve"] == second["curve"]
    assert first["curve"] == pytest.approx(curve, abs=1e-4)
    assert first["gain"] == second["gain"] == pytest.approx(alone.evaluate(), abs=1e-3)
    assert first["totals"] == alone.n_detections
    for name, weights in alone.network.state_dict().items():
        assert torch.equal(first["state"]["network"][name], second["state"]["network"][name])
        torch.testing.assert_close(first["state"]["network"][name], weights, atol=1e-4, rtol=1e-3)
    assert first["latents"].keys().isdisjoint(second["latents"])
    for part, latents in {**first["latents"], **second["latents"]}.items():
        torch.testing.assert_close(latents["value"], alone.latents[part].value, atol=1e-3, rtol=1e-3)


def test_a_training_goes_on_with_fewer_workers(two_workers: tuple[list[dict[str, Any]], list[str]]) -> None:
    first, second = two_workers[0]
    everyones = InMemoryParts(parts_of([9, 5, 7, 8, 6]), parts_of([3, 2, 4]))
    straight, resumed = AutodecoderTrainer(GRID, everyones), AutodecoderTrainer(GRID, everyones)
    resumed.load_state(first["state"], {**first["latents"], **second["latents"]}.__getitem__)
    for _ in range(20):
        straight.run_step()
    assert resumed.step == 20
    assert [resumed.run_step() for _ in range(5)] == pytest.approx([straight.run_step() for _ in range(5)], abs=1e-3)


def test_all_workers_name_the_detections_of_the_one_that_diverges(
    two_workers: tuple[list[dict[str, Any]], list[str]],
) -> None:
    first, second = two_workers[1]
    assert first == second
    assert "is not finite; 3 steps were skipped" in first


def test_what_is_reduced_does_not_grow_with_the_number_of_sources() -> None:
    def bytes_a_step(sizes: Sequence[int]) -> float:
        trainer = AutodecoderTrainer(GRID, InMemoryParts(parts_of(sizes)))
        for _ in range(3):
            trainer.run_step()
        return trainer.bytes_reduced / 3

    n_weights = sum(p.numel() for p in GRID.decoder().parameters())
    assert bytes_a_step([2, 2]) == bytes_a_step([20, 20, 20, 20]) == 4 * (n_weights + 3)


# --- checkpoints --------------------------------------------------------------------------------------------------


def saved(trainer: AutodecoderTrainer) -> tuple[dict[str, Any], dict[int, dict[str, Tensor]]]:
    """A trainer's state as it comes back from disk."""
    buffer = io.BytesIO()
    torch.save((trainer.state(), trainer.latent_states()), buffer)
    buffer.seek(0)
    state, latents = torch.load(buffer, weights_only=True)
    return state, latents


def assert_equal(one: Any, other: Any) -> None:
    """Exactly, tensors and all that holds them."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("settings", [replace(GRID, ema=0.9), ToySettings(dim=0, ema=0.9)])
def test_a_resumed_training_is_the_uninterrupted_one_to_the_last_bit(settings: Schedule) -> None:
    source = InMemoryParts(parts_of([9, 5, 7, 8]), parts_of([3]))
    straight, before, after = (AutodecoderTrainer(settings, source) for _ in range(3))
    for step in range(7):  # ends within the third epoch
        straight.run_step()
        before.run_step()
        if step == 3:
            assert straight.evaluate() == before.evaluate()
    state, latents = saved(before)
    after.load_state(state, latents.__getitem__)
    assert after.step % after.steps_per_epoch
    for _ in range(7):
        assert straight.run_step() == after.run_step()
    assert straight.evaluate() == after.evaluate()
    assert straight.loss == after.loss
    assert_equal(saved(straight), saved(after))


# --- what is kept -------------------------------------------------------------------------------------------------


def test_training_ends_when_nothing_better_comes_and_keeps_the_best() -> None:
    # A learning rate that overshoots more and more: the first evaluations are the best.
    settings = ToySettings(dim=0, epochs=50, learning_rate=3.0, weight_decay=0.0, warmup_steps=50, patience=3)
    trainer = AutodecoderTrainer(settings, InMemoryParts(parts_of([8, 8]), parts_of([6])))
    gains = []
    while not trainer.finished:
        trainer.run_epoch()
        gains.append(trainer.evaluate())
    best = int(np.argmax(gains))
    assert trainer.epoch == best + 1 + 3 < 50
    result = trainer.result()
    assert result["gain"] == max(gains)
    assert result["step"] == (best + 1) * trainer.steps_per_epoch
    again = Toy(settings)
    again.network.load_state_dict(result["network"])
    fit, _ = parts_of([6])[0], None
    assert not torch.equal(again.network.weight, trainer.network.weight)
    assert again.gains(fit, fit, None).isfinite().all()


def test_without_patience_all_epochs_run_and_the_last_weights_are_kept() -> None:
    trainer = AutodecoderTrainer(ToySettings(dim=0, patience=0), InMemoryParts(parts_of([8, 8]), parts_of([6])))
    while not trainer.finished:
        trainer.run_epoch()
        trainer.evaluate()
    assert trainer.epoch == 6
    assert torch.equal(trainer.result()["network"]["weight"], trainer.network.state_dict()["weight"])


def test_without_validation_sources_nothing_ends_early() -> None:
    trainer = AutodecoderTrainer(ToySettings(patience=1), InMemoryParts(parts_of([8, 8])))
    while not trainer.finished:
        trainer.run_epoch()
        assert trainer.evaluate() == 0.0
    assert trainer.epoch == 6


def test_the_moving_average_is_what_is_kept_and_lags_the_weights() -> None:
    source = InMemoryParts(parts_of([8, 8]))
    plain, averaged = (AutodecoderTrainer(ToySettings(dim=0, patience=0, ema=ema), source) for ema in (0.0, 0.95))
    for trainer in (plain, averaged):
        for _ in range(5):
            trainer.run_step()
    assert torch.equal(plain.network.bias, averaged.network.bias)  # training itself is not touched
    assert (averaged.result()["network"]["bias"] < plain.result()["network"]["bias"]).all()  # they rise from 0
    assert (averaged.result()["network"]["bias"] > 0).all()


# --- numbers that are not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gradient_only", "dim"), [(False, 2), (True, 2), (True, 0)])
def test_a_step_that_is_not_finite_is_skipped_and_a_detection_that_repeats_it_named(
    gradient_only: bool, dim: int
) -> None:
    parts = parts_of([8, 8])
    parts[1] = Photons.concatenate([parts[1], photons_of([source_of(7, n=33)], 3)])
    ids = {1: [*[f"good-{i}" for i in range(8)], "bad"]}
    settings = ToySettings(poison=33, poison_gradient=gradient_only, dim=dim, patience=0)
    trainer = AutodecoderTrainer(settings, InMemoryParts(parts, ids=ids))
    skipped = 0

    def train() -> None:
        nonlocal skipped
        while not trainer.finished:
            before, weights = saved(trainer), trainer.network.state_dict()["weight"].clone()
            if math.isfinite(trainer.run_step()):
                assert not torch.equal(weights, trainer.network.state_dict()["weight"])
                continue
            skipped += 1
            after = saved(trainer)
            for moved in ("network", "optimizer"):
                assert_equal(before[0][moved], after[0][moved])
            assert_equal(before[1], after[1])

    with pytest.raises(TrainingDiverged, match="gradient of bad is not finite; 3 steps were skipped") as raised:
        train()
    assert raised.value.detections == ["bad"]
    assert skipped == 2  # the third ended it
    assert trainer.epoch == 2  # it comes once an epoch
    assert all(table.value.isfinite().all() for table in trainer.latents.values())


def test_three_steps_in_a_row_end_the_training_whoever_causes_them() -> None:
    trainer = AutodecoderTrainer(ToySettings(poison=60), InMemoryParts(parts_of([30])))
    with pytest.raises(TrainingDiverged, match="3 steps were skipped"):
        trainer.run_epoch()
    assert trainer.step == 2


# --- odd data -------------------------------------------------------------------------------------------------------


def test_detections_of_one_event_or_none_and_a_band_that_is_always_empty_train() -> None:
    gti, soft = GoodTimeIntervals([0.0], [1e4]), np.full(50, 0.8, np.float32)
    random = np.random.default_rng(0)
    events = [
        EventList(f"{n}", f"{n}", np.sort(random.uniform(0, 1e4, n)), soft[:n], gti, BANDS, 1e4) for n in (0, 1, 1, 50)
    ]
    trainer = AutodecoderTrainer(
        GRID, InMemoryParts({0: photons_of(events, 3), 5: photons_of([], 3)}, {0: photons_of(events, 3)})
    )
    while not trainer.finished:
        assert math.isfinite(trainer.run_epoch())
        assert math.isfinite(trainer.evaluate())
    assert trainer.progress.skipped_steps == 0
    assert all(value.isfinite().all() for value in trainer.result()["network"].values())


# --- mixed precision and compilation --------------------------------------------------------------------------------


def test_bfloat16_trains_nearly_as_float32_and_is_validated_in_float32() -> None:
    source = InMemoryParts(parts_of([24, 24]), parts_of([6]))
    full, mixed = (AutodecoderTrainer(replace(GRID, precision=p), source) for p in ("float32", "bfloat16"))
    for _ in range(8):
        one, other = full.run_step(), mixed.run_step()
        assert other == pytest.approx(one, abs=1e-3)
    assert other != one  # it is in another precision
    assert all(p.dtype is torch.float32 for p in mixed.network.parameters())
    assert "forward" not in vars(mixed.network)
    mixed.network.load_state_dict(full.network.state_dict())
    for part, table in full.latents.items():
        mixed.latents[part].load_state(table.state())
    assert mixed.evaluate() == full.evaluate()


def test_what_is_compiled_is_the_network_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def compile_(forward: Any) -> Any:
        def call(*inputs: Any) -> Any:
            compiled.append(len(inputs))
            return forward(*inputs)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    source = InMemoryParts(parts_of([8]), parts_of([4]))
    plain, fast = (AutodecoderTrainer(ToySettings(compile=c), source) for c in (False, True))
    assert plain.run_step() == fast.run_step()
    assert compiled == [1]
    fast.evaluate()
    assert compiled == [1]
