"""The contrastive loss against a derivation of its own, on one process and on two."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.models.alignment.contrastive import MAX_SCALE, distributed_symmetric_info_nce, symmetric_info_nce


def units(rng: np.random.Generator, n: int, dimension: int) -> np.ndarray:
    vectors = rng.normal(size=(n, dimension))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference(x: np.ndarray, t: np.ndarray, log_scale: float) -> tuple[float, np.ndarray, np.ndarray, float]:
    """Loss and gradients by x, t and log_scale, from the definition, in float64.

    With p = softmax over the texts and q = softmax over the X-ray vectors, dL/dz = (p + q − 2·1) / 2N.
    """
    scale, n = np.exp(log_scale), len(x)
    cosine = x @ t.T
    p = np.exp(scale * cosine)
    q = p / p.sum(0, keepdims=True)
    p = p / p.sum(1, keepdims=True)
    loss = -(np.log(np.diag(p)) + np.log(np.diag(q))).sum() / (2 * n)
    dz = (p + q - 2 * np.eye(n)) / (2 * n)
    return loss, scale * dz @ t, scale * dz.T @ x, scale * (dz * cosine).sum()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(2, 6), st.floats(-1.0, 3.0), st.integers(0, 2**32 - 1))
def test_loss_and_gradients_are_the_definitions(n: int, dimension: int, log_scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, t = units(rng, n, dimension), units(rng, n, dimension)
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, t, log_scale)]
    loss = symmetric_info_nce(*tensors)
    loss.backward()
    expected = reference(x, t, log_scale)
    for got, wanted in zip([loss.detach(), *(a.grad for a in tensors)], expected, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_reference_gradients_are_those_of_its_loss() -> None:
    """Guards the derivation itself, by finite differences."""
    rng = np.random.default_rng(1)
    x, t, log_scale, step = units(rng, 5, 3), units(rng, 5, 3), 1.2, 1e-6
    _, by_x, by_t, by_scale = reference(x, t, log_scale)
    for array, gradient in ((x, by_x), (t, by_t)):
        for i in np.ndindex(array.shape):
            kept, values = array[i], []
            for sign in (1, -1):
                array[i] = kept + sign * step
                values.append(reference(x, t, log_scale)[0])
            array[i] = kept
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient[i], abs=1e-8)
    up, down = (reference(x, t, log_scale + s * step)[0] for s in (1, -1))
    assert (up - down) / (2 * step) == pytest.approx(by_scale, abs=1e-8)


def test_vectors_that_say_nothing_cost_log_n() -> None:
    same = torch.ones(7, 4) / 2
    assert float(symmetric_info_nce(same, same, torch.tensor(2.0))) == pytest.approx(np.log(7), rel=1e-6)


def test_scale_is_clipped() -> None:
    x = torch.tensor(units(np.random.default_rng(0), 6, 3))
    huge, largest = (symmetric_info_nce(x, -x, torch.tensor(s)) for s in (50.0, float(np.log(MAX_SCALE))))
    assert float(huge) == pytest.approx(float(largest), rel=1e-6)


def _worker(rank: int, workers: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers)
    inputs = torch.load(f"{folder}/inputs.pt", weights_only=True)
    # One weight shared by the workers stands for a tower: its averaged gradient is what DistributedDataParallel gives.
    weight, log_scale = (inputs[name].clone().requires_grad_() for name in ("weight", "log_scale"))
    mine = slice(rank * 4, (rank + 1) * 4)
    x = torch.nn.functional.normalize(inputs["x"][mine] @ weight, dim=-1)
    t = torch.nn.functional.normalize(inputs["t"][mine] @ weight, dim=-1)
    loss = distributed_symmetric_info_nce(x, t, log_scale)
    loss.backward()
    results = [loss.detach(), weight.grad, log_scale.grad]
    for result in results:
        dist.all_reduce(result)
        result /= workers
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.destroy_process_group()


def test_two_workers_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    draw = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in {"x": (8, 5), "t": (8, 5), "weight": (5, 3)}.items()
    }
    inputs = {**draw, "log_scale": torch.tensor(1.5, dtype=torch.float64)}
    torch.save(inputs, tmp_path / "inputs.pt")
    mp.spawn(_worker, (2, str(tmp_path)), nprocs=2)
    loss, by_weight, by_scale = torch.load(tmp_path / "results.pt", weights_only=True)

    weight, log_scale = inputs["weight"].requires_grad_(), inputs["log_scale"].requires_grad_()
    x, t = (torch.nn.functional.normalize(inputs[name] @ weight, dim=-1) for name in ("x", "t"))
    alone = symmetric_info_nce(x, t, log_scale)
    alone.backward()
    assert float(loss) == pytest.approx(alone.item(), rel=1e-12)
    torch.testing.assert_close(by_weight, weight.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(by_scale, log_scale.grad, rtol=1e-10, atol=1e-12)
