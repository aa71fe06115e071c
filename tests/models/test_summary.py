"""What a rate shows in numbers, against sums written out, and representations made shorter."""

import numpy as np
import pytest
import torch

from lexray.inference.autodecoder import Autodecoder
from lexray.models.autodecoders.compression import Compression
from lexray.models.autodecoders.splitnet.summary import N_SUMMARY, rate_summary
from lexray.simulation.population import LIGHT_CURVE_TYPES, SimulatedPopulation


def test_the_summary_is_that_of_sums_written_out() -> None:
    random = np.random.default_rng(0)
    rate = np.exp(random.normal(0, 0.5, (3, 3, 64))).astype(np.float32)
    exposure = np.ones((3, 64), np.float32)
    exposure[1, 10] = 0.25
    exposure[2, 40:] = 0.0  # cells that are not used
    rate[2, :, 40:] = 1e9
    found = rate_summary(torch.from_numpy(rate), torch.from_numpy(exposure)).numpy()
    assert found.shape == (3, N_SUMMARY)
    for r, e, numbers in zip(rate.astype(float), exposure.astype(float), found, strict=True):
        used = e > 0
        r, w = r[:, used], e[used] / e[used].sum()
        x = r.sum(0) / (w * r.sum(0)).sum() - 1
        rms = np.sqrt((w * x**2).sum()) + 1e-3
        eighth = np.minimum((8 * (w.cumsum() - w / 2)).astype(int), 7)
        means = [(w[eighth == p].sum(), np.average(x[eighth == p], weights=w[eighth == p])) for p in range(8)]
        colour = np.log(r[2] / r[0])
        expected = [
            np.log(rms),
            np.cbrt((w * x**3).sum()) / rms,
            np.log(np.sqrt(sum(share * mean**2 for share, mean in means)) + 1e-3) - np.log(rms),
            np.log(np.abs(np.diff(x)).mean() + 1e-4) - np.log(rms),
            np.log(np.sqrt((w * (colour - (w * colour).sum()) ** 2).sum()) + 1e-2),
        ]
        np.testing.assert_allclose(numbers, expected, rtol=2e-4, atol=2e-4)


def test_compressed_features_are_those_that_vary_and_of_unit_variance() -> None:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 5, generator=random)
    features = 3 + hidden @ torch.randn(5, 40, generator=random) + 1e-3 * torch.randn(500, 40, generator=random)
    short = Compression.learn(features)(features)
    assert short.shape == (500, 8)
    torch.testing.assert_close(short.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(short[:, :5].T @ short[:, :5] / 500, torch.eye(5), atol=0.02, rtol=0)
    assert float(short[:, 5:].std(0).max()) < 0.7  # noise is not blown up to the size of the rest
    known = torch.cat([short[:, :5], torch.ones(500, 1)], 1)
    found = known @ torch.linalg.lstsq(known, hidden).solution
    assert float((found - hidden).square().mean()) < 1e-2  # what varies can be read off


def test_a_calibrated_representation_is_short_and_tells_flares_from_dips(
    splitnet: Autodecoder, new: SimulatedPopulation
) -> None:
    encoded = splitnet.encode_photons(new.photons)
    assert encoded.latent.shape[1] == splitnet.latent_dim == N_SUMMARY + 8 + 32
    kind = np.array([LIGHT_CURVE_TYPES[k] for k in new.light_curve_type])
    rms, skewness = encoded.latent[:, 0], encoded.latent[:, 1]
    assert rms[kind == "flare"].mean() > rms[kind == "steady"].mean() + 1
    assert np.median(skewness[kind == "flare"]) > 0.3 > np.median(skewness[kind == "eclipse"])


@pytest.mark.parametrize("n_bands", [1, 2])
def test_any_number_of_bands_has_a_summary(n_bands: int) -> None:
    found = rate_summary(torch.ones(2, n_bands, 64), torch.ones(2, 64))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:, 0], torch.full((2,), np.log(1e-3)).float())
