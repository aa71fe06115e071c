"""`splitnet`: its cells, its splits, its losses against scipy, and what a small trained one says of new sources."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import stats

from builders import ENERGIES, event_list
from lexray.errors import LexrayError
from lexray.events.eventlist import Background, EventList, GoodTimeIntervals
from lexray.events.reader import read_events
from lexray.inference.autodecoder import DESCRIPTION, WEIGHTS, Autodecoder, load_autodecoder
from lexray.inference.photons import photons_of
from lexray.models.autodecoders.learner import keyed_generator
from lexray.models.autodecoders.splitnet.binning import DEFAULT_CELLS, FEWEST, MOST, bin_photons, n_cells
from lexray.models.autodecoders.splitnet.inference import IN_GAP, log_gamma_quantile, rates_in_bins
from lexray.models.autodecoders.splitnet.loss import log_negative_binomial
from lexray.models.autodecoders.splitnet.network import NetworkInput, estimate
from lexray.models.autodecoders.splitnet.thinning import BatchBySize, thin
from lexray.models.autodecoders.splitnet.training import SplitnetSettings
from lexray.simulation.population import LIGHT_CURVE_TYPES, SimulatedPopulation, simulate


def detection(time: np.ndarray, gti: GoodTimeIntervals, **more: object) -> EventList:
    return event_list(time, 1.5, gti, **more)


# --- cells


@pytest.mark.parametrize(
    ("n", "ontime", "frame_time", "expected"),
    [
        (300, 28_800.0, np.nan, DEFAULT_CELLS),
        (300, 1_000.0, np.nan, DEFAULT_CELLS),
        (300, 115_200.0, np.nan, 2 * DEFAULT_CELLS),
        (3_000, 1_000.0, np.nan, 2 * DEFAULT_CELLS),
        (300, 230_400.0, 3.2, 4 * DEFAULT_CELLS),
        (300, 1e7, np.nan, MOST),
        (300, 100.0, 3.2, 16),  # 31 frames: cells of two
        (3_000, 1_000.0, 3.2, 256),
        (300, 5.0, 3.2, FEWEST),
    ],
)
def test_cells_follow_good_time_and_photons_and_are_no_shorter_than_a_frame(
    n: int, ontime: float, frame_time: float, expected: int
) -> None:
    gti = GoodTimeIntervals([0.0, 2 * ontime], [ontime / 2, 2.5 * ontime])
    one = detection(gti.time_at(np.linspace(0, ontime, n)), gti, frame_time=frame_time)
    assert n_cells(photons_of([one], 3)).tolist() == [expected]


def observation(seed: int, most_gaps: int = 60) -> EventList:
    """Photons at random in good time with up to `most_gaps` gaps of very different lengths."""
    random = np.random.default_rng(seed)
    n = random.integers(1, most_gaps + 2)
    length, gap = random.exponential(100, n) + 0.1, 10 ** random.uniform(-2, 4, n)
    start = np.concatenate([[0.0], (length + gap)[:-1].cumsum()])
    gti = GoodTimeIntervals(start, start + length)
    time = np.sort(gti.time_at(random.uniform(0, gti.ontime, random.integers(0, 400))))
    return event_list(time, random.choice(ENERGIES, len(time)), gti, detection_id=str(seed))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 20), st.integers(1, 12))
def test_cells_keep_every_photon_and_all_good_time(seed: int, n: int) -> None:
    events = [observation(seed + i) for i in range(n)]
    groups, size, place = bin_photons(photons_of(events, 3))
    for i, e in enumerate(events):
        data = groups[int(size[i])].select(place[i : i + 1])
        cells = data.cells
        assert data.counts()[0].sum(1).tolist() == np.bincount(e.band, minlength=3).tolist()
        assert data.energies().sum() == len(e)
        assert float((cells.exposure[0] * cells.width[0]).sum()) == pytest.approx(e.gti.ontime, rel=1e-4)
        # Counted anew where the cells say that they begin and end.
        used = cells.exposure[0] > 0
        begin, end = cells.begin[0, used].numpy(), cells.end[0, used].numpy()
        place_of = np.searchsorted(begin, e.time, side="right") - 1
        counts = np.bincount(place_of, minlength=len(begin))
        assert np.abs(counts - data.counts()[0, :, used].sum(0).numpy()).sum() <= 2  # on an edge, by rounding
        exposure = np.array([e.gti.exposure(np.array([a, b]))[0] for a, b in zip(begin, end, strict=True)])
        np.testing.assert_allclose(cells.exposure[0, used] * cells.width[0], exposure, rtol=1e-3, atol=1e-3)


def test_no_detection_is_read_on_anothers_clock() -> None:
    """Of many long detections, whose sums are rounded; and with photons of a background outside good time."""
    random = np.random.default_rng(6)
    n = 3000
    length, start = random.uniform(1, 1e7, (n, 3)), np.zeros((n, 3))
    start[:, 1:] = (length + random.uniform(1, 1e5, (n, 3)))[:, :-1].cumsum(1)
    events = [event_list([s[0]], 1.5, GoodTimeIntervals(s, s + d)) for s, d in zip(start, length, strict=True)]
    photons = photons_of(events, 3)
    owner = torch.arange(n)
    assert torch.equal(photons.time_at(owner, torch.zeros(n, dtype=torch.float64)), torch.zeros(n, dtype=torch.float64))
    middle = torch.from_numpy(length[:, 0] + length[:, 1] / 2)
    np.testing.assert_allclose(photons.time_at(owner, middle), start[:, 1] + length[:, 1] / 2, rtol=1e-9, atol=1e-3)
    assert torch.equal(photons.good_time_before[photons.gti_offsets[:-1]], torch.zeros(n, dtype=torch.float64))
    for time, expected in ((-5.0, 0), (4e7, 2)):
        found = photons.interval_of(owner, torch.full((n,), time, dtype=torch.float64))
        assert torch.equal(found, photons.gti_offsets[:-1] + expected)


def test_a_good_time_of_no_length_has_no_cell() -> None:
    """As a table that another program wrote may have it; `GoodTimeIntervals` drops it."""
    e = detection(np.array([10.0, 90.0, 950.0]), GoodTimeIntervals([0.0, 900.0], [100.0, 1000.0]))
    photons = photons_of([e], 3)
    empty = replace(
        photons,
        gti_start=torch.tensor([0.0, 500.0, 900.0], dtype=torch.float64),
        gti_stop=torch.tensor([100.0, 500.0, 1000.0], dtype=torch.float64),
        gti_offsets=torch.tensor([0, 3]),
    )
    ((_, one),), ((_, other),) = (bin_photons(some)[0].items() for some in (photons, empty))
    n = int((other.cells.exposure > 0).sum())
    assert n == int((one.cells.exposure > 0).sum())
    assert (other.cells.exposure[0, :n] > 0).all()
    assert float((other.cells.exposure * other.cells.width[:, None]).sum()) == pytest.approx(200.0, rel=1e-5)
    assert torch.equal(other.counts(), one.counts())
    torch.testing.assert_close(other.cells.gap, one.cells.gap)


@pytest.mark.parametrize("n_intervals", [2, 40, 3000])
def test_cells_end_where_a_gap_begins(n_intervals: int) -> None:
    """Of 3,000 intervals the longest gaps count: a quarter of the cells."""
    random = np.random.default_rng(n_intervals)
    gap = random.permutation(np.linspace(10.0, 1000.0, n_intervals - 1))
    start = np.concatenate([[0.0], (gap + 1.0).cumsum()])
    e = event_list(start + 0.5, 1.5, GoodTimeIntervals(start, start + 1.0))
    ((k, data),) = bin_photons(photons_of([e], 3))[0].items()
    opened = data.cells.begin[0][data.cells.gap[0] > 0].numpy()
    n_opened = min(n_intervals - 1, k // 4)
    np.testing.assert_allclose(opened, np.sort(start[1:][gap >= np.sort(gap)[-n_opened]]))
    np.testing.assert_allclose(np.sort(data.cells.gap[0][data.cells.gap[0] > 0]), np.sort(gap)[-n_opened:], rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 64, 1000]))
def test_rates_in_bins_give_the_cells_expected_counts(seed: int, bins: int) -> None:
    e = observation(seed)
    ((k, data),) = bin_photons(photons_of([e], 3))[0].items()
    rate = torch.rand(1, 3, k, generator=keyed_generator(seed % 1000), dtype=torch.float64) + 0.1
    found = rates_in_bins(rate, data.cells, bins)
    edges = np.linspace(0.0, e.duration, bins + 1)
    expected = (rate * data.cells.exposure * data.cells.width[:, None, None]).sum(-1)
    by_bins = (found.numpy()[0] * e.gti.exposure(edges)).sum(1)
    np.testing.assert_allclose(by_bins, expected[0], rtol=0.02)  # a cell may hold short losses of good time
    assert float(found.min()) > 0.09
    assert float(found.max()) < 1.11


def test_a_bin_in_a_gap_lies_between_the_cells_on_both_sides() -> None:
    e = detection(np.linspace(1, 99, 300), GoodTimeIntervals([0.0, 900.0], [100.0, 1000.0]))
    ((k, data),) = bin_photons(photons_of([e], 3))[0].items()
    rate = torch.where(data.cells.begin < 500, 1.0, 4.0).double()[:, None].expand(1, 3, k)
    between, smaller, larger = (rates_in_bins(rate, data.cells, 10, how)[0, 0] for how in IN_GAP)
    assert between[[0, -1]].tolist() == pytest.approx([1.0, 4.0])
    assert (between[1:-1].diff() > 0).all()
    assert between[1:-1].log().diff().diff().abs().max() < 1e-9  # a straight line in the logarithm
    assert smaller[1:-1].tolist() == pytest.approx([1.0] * 8)
    assert larger[1:-1].tolist() == pytest.approx([4.0] * 8)


# --- splits and losses


def test_a_split_deals_each_photon_to_one_side(new: SimulatedPopulation) -> None:
    (data,) = bin_photons(new.photons)[0].values()
    one = thin(data, torch.arange(len(data)), keyed_generator(1), background_augmentation=0.0)
    counts = data.counts()
    assert torch.equal((one.seen.counts + one.target).sum(-1), counts.sum(-1))
    assert torch.equal(one.seen.energies + one.target_energies, data.energies())
    # Photons and good time are turned and shifted together: each detection keeps how many fell on how much of it.
    for whole, dealt, before, after in zip(
        counts.sum(1), (one.seen.counts + one.target).sum(1), data.cells.exposure, one.seen.exposure, strict=True
    ):
        assert sorted(zip(whole.tolist(), before.tolist(), strict=True)) == sorted(
            zip(dealt.tolist(), after.tolist(), strict=True)
        )
    share, weight = one.seen.counts.sum() / counts.sum(), counts.sum((1, 2)) / counts.sum()
    four_sigma = 4 * 0.45 / 12**0.5 * float(weight.square().sum()) ** 0.5
    assert float(share) == pytest.approx(0.725, abs=four_sigma)  # the mean of 0.5 … 0.95


def test_another_ones_photons_serve_as_background_in_the_stated_ratio(new: SimulatedPopulation) -> None:
    (data,) = bin_photons(new.photons)[0].values()
    one = thin(data, torch.arange(len(data)), keyed_generator(1), background_augmentation=1.0)
    assert not one.seen.scale.isnan().any()
    added = (one.seen.counts + one.target).sum((1, 2)) - data.counts().sum((1, 2))
    assert (added >= 0).all()
    region = one.seen.background.sum((1, 2))
    share = 1 / (1 + one.ratio)
    expected = (region / (one.seen.scale * share)).sum()  # scale is over the part that is seen
    assert float(added.sum()) == pytest.approx(float(expected), rel=0.05)
    assert (one.seen.background.sum(1)[one.seen.exposure == 0] == 0).all()


def test_gaps_stay_between_the_same_cells_where_time_runs_backwards(new: SimulatedPopulation) -> None:
    (data,) = bin_photons(new.photons)[0].values()
    one = thin(data, torch.arange(len(data)), keyed_generator(2), background_augmentation=0.0)
    for before, after in zip(data.cells.gap, one.seen.gap, strict=True):
        assert sorted(before.tolist()) == sorted(after.tolist())
    gappy = int((data.cells.gap > 0).sum(1).argmax())
    exposure, gap = data.cells.exposure[gappy], data.cells.gap[gappy]
    # Cells on both sides of each gap, in one direction of time or the other.
    sides = {
        frozenset((round(float(e.roll(1)[k]), 5), round(float(e[k]), 5), round(float(g[k]), 3)))
        for e, g in ((exposure, gap), (one.seen.exposure[gappy], one.seen.gap[gappy]))
        for k in (g > 0).nonzero()[:, 0].tolist()
    }
    assert len(sides) == int((gap > 0).sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.floats(1e-3, 50), st.floats(1e-3, 20))
def test_counts_of_an_uncertain_rate_are_negative_binomial(n: int, mean: float, variance: float) -> None:
    found = log_negative_binomial(torch.tensor([float(n)]), torch.tensor([mean]), torch.tensor([variance]))
    shape = 1 / variance
    expected = stats.nbinom.logpmf(n, shape, shape / (shape + mean)) + stats.poisson.logpmf(n, 1.0) * 0
    missing = -float(torch.lgamma(torch.tensor(n + 1.0, dtype=torch.float64)))  # what depends on n alone is left out
    assert found.item() + missing == pytest.approx(expected, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("probability", [0.025, 0.16, 0.5, 0.84, 0.975])
def test_quantiles_of_the_gamma_distribution(probability: float) -> None:
    variance = torch.tensor([1e-3, 0.02, 0.3, 1.0, 5.0])
    shape = 1 / variance.double().numpy()
    expected = np.log(stats.gamma.ppf(probability, shape, scale=1 / shape))
    np.testing.assert_allclose(log_gamma_quantile(variance, probability).numpy(), expected, rtol=2e-3, atol=2e-3)


def test_a_sources_loss_does_not_depend_on_its_company(new: SimulatedPopulation) -> None:
    learner = SplitnetSettings(width=8, background_augmentation=0.3).learner()
    data = learner.prepare(new.photons)
    sample = learner.draw(data, torch.arange(12), keyed_generator(3))
    ((k, one),) = sample.items()
    together = learner.losses(sample, None)
    for i in range(12):
        row = torch.tensor([i])
        alone = replace(
            one,
            row=torch.tensor([0]),
            seen=one.seen.map(lambda value, row=row: value[row]),
            target=one.target[row],
            target_energies=one.target_energies[row],
            ratio=one.ratio[row],
        )
        assert learner.losses(BatchBySize({k: alone}), None).item() == pytest.approx(together[i].item(), rel=1e-4)


def test_batches_of_several_numbers_of_cells_keep_their_order(new: SimulatedPopulation) -> None:
    """Losses come in the order of the rows, whatever group each detection is in."""
    long = replace(new.photons, gti_stop=new.photons.gti_stop.clone(), time=new.photons.time.clone())
    for i in range(0, 240, 3):  # every third is stretched to four times its length
        long.gti_stop[long.gti_offsets[i + 1] - 1] *= 4
    learner = SplitnetSettings(width=8, background_augmentation=0.3).learner()
    data = learner.prepare(long)
    assert len(data.groups) == 2
    rows = torch.arange(10)
    joined = BatchBySize.concatenate([learner.draw(data, rows, keyed_generator(4)) for _ in range(2)])
    losses = learner.losses(joined, None)
    assert torch.allclose(losses[:10], losses[10:], rtol=1e-4)
    for k, one in joined.items():
        in_group = learner.losses(BatchBySize({k: replace(one, row=torch.arange(len(one.row)))}), None)
        assert torch.allclose(losses[one.row], in_group, rtol=1e-4)
    assert sorted(torch.cat([one.row for one in joined.values()]).tolist()) == list(range(20))


# --- a trained one


def test_it_predicts_held_out_photons_of_new_sources(splitnet: Autodecoder, new: SimulatedPopulation) -> None:
    fit, held = new.photons.thin(0.8, keyed_generator(0))
    with torch.no_grad():
        gains = splitnet._learner.gains(fit, held, None)
    varying = torch.tensor([LIGHT_CURVE_TYPES[k] != "steady" for k in new.light_curve_type])
    assert float(gains[varying].sum() / held.counts.sum(1)[varying].sum() / np.log(2)) > 0.1
    assert abs(float(gains[~varying].sum() / held.counts.sum(1)[~varying].sum())) < 0.05


def test_the_rate_integrates_to_the_counts_also_through_gaps(splitnet: Autodecoder, new: SimulatedPopulation) -> None:
    events = new.event_lists()[:40]
    assert any(len(e.gti) > 1 for e in events)
    for e, (edges, rate) in zip(events, splitnet.rates(events), strict=True):
        counts = np.bincount(e.band, minlength=3)
        np.testing.assert_allclose((rate * e.gti.exposure(edges)).sum(1), counts + 0.5, rtol=0.01)


def test_likelihood_is_in_physical_units(splitnet: Autodecoder, new: SimulatedPopulation) -> None:
    events = new.event_lists()[:5]
    rates, nlls = splitnet.rates_at_full_resolution(events), -splitnet.log_prob(events)
    for e, (edges, rate), nll in zip(events, rates, nlls, strict=True):
        cell = np.minimum(np.searchsorted(edges, e.time, side="right") - 1, len(edges) - 2)
        by_hand = (rate * e.gti.exposure(edges)).sum() - np.log(rate[e.band, cell]).sum()
        assert nll == pytest.approx(by_hand, rel=1e-4)


def test_intervals_hold_the_truth_and_wider_ones_more_often(splitnet: Autodecoder, new: SimulatedPopulation) -> None:
    """A model of some seconds' training; `benchmarks/reconstruction.py` measures the coverage of a whole one."""
    events = new.event_lists()
    shares = []
    for level in (0.68, 0.95):
        found = splitnet.rate_intervals(events, 256, level)
        assert found is not None
        inside = [
            np.mean((low <= (truth := new.rate(i).rate[:, 4::8])) & (truth <= high))
            for i, (_, low, high) in enumerate(found)
        ]
        shares.append(np.mean(inside))
    assert 0.5 < shares[0] < 0.85
    assert 0.85 < shares[1] < 0.99


def test_encoding_does_not_depend_on_company_or_order(splitnet: Autodecoder, new: SimulatedPopulation) -> None:
    events = new.event_lists()[:9]
    together, backwards, alone = (splitnet.encode(some) for some in (events, events[::-1], events[4:5]))
    np.testing.assert_allclose(together.latent, backwards.latent[::-1], atol=1e-4)
    np.testing.assert_allclose(together.latent[4], alone.latent[0], atol=1e-4)
    assert together.latent_var is not None
    assert together.latent_var.shape == together.latent.shape
    assert (together.latent_var > 0).all()
    assert together.n_steps == 0


def test_saved_and_loaded_it_answers_the_same(splitnet: Autodecoder, new: SimulatedPopulation, tmp_path: Path) -> None:
    splitnet.save(str(tmp_path))
    again = load_autodecoder(str(tmp_path))
    one, other = (m.encode_photons(new.photons) for m in (splitnet, again))
    for name in ("latent", "latent_var", "log_rate", "nll", "anomaly", "p_value"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert again.name == splitnet.name


def test_what_the_version_before_saved_is_read_with_one_line(
    splitnet: Autodecoder, new: SimulatedPopulation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splitnet.save(tmp_path)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    former = {"batch_size": "batch", "grad_clip_norm": "clip", "warmup_steps": "warm_up", "part_streams": "lanes",
              "background_augmentation": "contaminate"}  # fmt: skip
    stored = {former.get(name, name): value for name, value in description["settings"].items()}
    (tmp_path / DESCRIPTION).write_text(json.dumps({"kind": "splitnet", "settings": stored}))
    tensors = load_file(tmp_path / WEIGHTS)
    assert {name.split(".")[0] for name in tensors if ".uncertainty." in name} == {"network", "calibration"}
    renamed = {name.replace(".uncertainty.", ".doubt."): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / WEIGHTS)

    again = load_autodecoder(tmp_path)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert again.settings == splitnet.settings
    photons = new.photons.select(torch.arange(5))
    np.testing.assert_array_equal(again.encode_photons(photons).latent, splitnet.encode_photons(photons).latent)


def test_a_calibration_of_another_version_is_refused_in_one_line(splitnet: Autodecoder, tmp_path: Path) -> None:
    splitnet.save(tmp_path)
    save_file(load_file(tmp_path / WEIGHTS) | {"calibration.drift.mean": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(LexrayError, match=r"another version of Lexray \('drift'\); train it again$"):
        load_autodecoder(tmp_path)


def test_a_flare_of_the_background_alone_leaves_the_source_flat(splitnet: Autodecoder) -> None:
    random = np.random.default_rng(5)
    gti = GoodTimeIntervals([0.0], [28_800.0])
    flare = lambda n: random.normal(14_400, 900, n)  # noqa: E731
    time = np.concatenate([random.uniform(0, 28_800, 400), flare(random.poisson(200))])
    region = np.concatenate([random.uniform(0, 28_800, 100), flare(random.poisson(1600))])
    region = np.sort(region)
    background = Background(region, np.full(len(region), 1.5, np.float32), 8.0)
    known, unknown = (splitnet.rate(detection(time, gti, **more))[1][1] for more in ({"background": background}, {}))
    middle, outside = slice(120, 136), np.r_[0:90, 166:256]
    assert unknown[middle].mean() > 4 * unknown[outside].mean()
    assert known[middle].mean() == pytest.approx(known[outside].mean(), rel=0.5)
    # 100 of the region's photons are steady, an eighth of them in the source's region.
    assert known.mean() * 28_800 == pytest.approx(400, rel=0.2)


# --- odd detections


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_photons_are_encoded_with_wide_intervals(splitnet: Autodecoder, n: int) -> None:
    e = detection(np.linspace(100.0, 900.0, n), GoodTimeIntervals([0.0], [1000.0]))
    encoded = splitnet.encode([e])
    for name in ("latent", "latent_var", "log_rate", "nll", "anomaly", "p_value"):
        assert np.isfinite(getattr(encoded, name)).all(), name
    intervals = splitnet.rate_intervals([e], 64, 0.95)
    assert intervals is not None
    _, low, high = intervals[0]
    assert (high > 5 * low).all()
    assert np.isfinite(high).all()


def test_ten_million_events_are_encoded(splitnet: Autodecoder) -> None:
    time = np.random.default_rng(1).uniform(0, 28_800, 10_000_000)
    e = detection(time, GoodTimeIntervals([0.0], [28_800.0]))
    encoded = splitnet.encode([e])
    assert np.isfinite(encoded.latent).all()
    assert np.exp(encoded.log_rate[0, 1]) == pytest.approx(1e7 / 28_800, rel=1e-3)


def test_what_has_no_good_time_is_refused_by_name(splitnet: Autodecoder) -> None:
    with pytest.raises(LexrayError, match="d: has no good time"):
        splitnet.encode([detection(np.zeros(0), GoodTimeIntervals([], []))])


def test_a_band_without_any_event_in_the_whole_set_is_trained_and_encoded() -> None:
    photons = simulate(64, seed=3).photons
    dark = photons.keep(photons.band != 2)
    fitted = Autodecoder.fit(dark, SplitnetSettings(width=8, epochs=1))
    encoded = fitted.encode_photons(dark)
    assert np.isfinite(encoded.latent).all()
    assert np.isfinite(encoded.nll).all()


def test_the_same_photons_over_minutes_and_over_hours_are_not_the_same(splitnet: Autodecoder) -> None:
    share = np.random.default_rng(2).uniform(0, 1, 200)
    short, long = (
        splitnet.encode([detection(share * t, GoodTimeIntervals([0.0], [t]))]).latent for t in (1_000.0, 28_800.0)
    )
    assert np.abs(short - long).max() > 1e-3


# --- real files


@pytest.mark.parametrize(
    "name",
    ["chandra_test.fits", "ngc300nicer_bary.evt", "J0218_nicer_2070030405_cleanfilt_cut_bary.evt"],
)
def test_real_files_are_encoded_and_their_mean_rate_gives_their_counts(real_events: object, name: str) -> None:
    """NGC 300 ULX1 has 1.5 ks of good time in 11.5 ks: its gaps must not dilute its rate."""
    model = load_autodecoder("reference")
    events = read_events(real_events / name)  # type: ignore[operator]
    assert len(events.bands) == 3
    encoded = model.encode([events])
    assert np.isfinite(encoded.latent).all()
    edges, rate = model.rates([events])[0]
    counts = np.bincount(events.band, minlength=3)
    expected = (rate * events.gti.exposure(edges)).sum(1)
    assert np.all(np.abs(expected - counts) < 3 * np.sqrt(counts + 1))
    mean = rate.mean(1) * events.gti.ontime
    assert mean.sum() == pytest.approx(counts.sum(), rel=0.3)


def test_the_network_reads_any_device_tensor_alike(new: SimulatedPopulation) -> None:
    """What one batch of all says, batches of one say too: nothing is normalised over detections."""
    (data,) = bin_photons(new.photons)[0].values()
    network = SplitnetSettings(width=8).learner().network
    seen: NetworkInput = data.select(torch.arange(6)).seen()
    with torch.no_grad():
        together = estimate(network, seen).density
        ones = [estimate(network, seen.map(lambda value, i=i: value[i : i + 1])).density for i in range(6)]
    torch.testing.assert_close(together, torch.cat(ones), rtol=1e-4, atol=1e-5)
