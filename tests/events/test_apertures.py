"""Sources out of simulated fields of which everything is known."""

from typing import Any

import numpy as np
import pytest
from astropy.coordinates import ICRS
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lexray.errors import ConfigError
from lexray.events.extraction.apertures import Aperture, apply_regions, extract
from lexray.events.extraction.exposed_area import ExposedArea
from lexray.events.extraction.regions import parse_region
from lexray.events.extraction.source_table import SourceTable
from lexray.events.extraction.wcs import Plane

Float64s = NDArray[np.float64]

PIXEL_ARCSEC = 0.492
CENTRE = 4096.5
#: Half the side of a simulated detector, pixels, and its background: with these a coverage map's windows are 19 wide.
HALF, DENSITY = 500.0, 0.1


def plane_at(ra: float = 150.0, dec: float = 2.0) -> Plane:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [CENTRE, CENTRE]
    wcs.wcs.cdelt = [-PIXEL_ARCSEC / 3600, PIXEL_ARCSEC / 3600]
    wcs.wcs.set()
    return Plane(wcs, ICRS(), PIXEL_ARCSEC)


PLANE = plane_at()


def catalogue(
    x: Any, y: Any, radius: Any, plane: Plane = PLANE, names: list[str] | None = None, region: Any = None
) -> SourceTable:
    """Sources at pixels relative to the field's centre, with radii in pixels."""
    ra, dec = plane.to_sky(CENTRE + np.asarray(x, dtype=float), CENTRE + np.asarray(y, dtype=float))
    n = len(ra)
    texts: list[str | None] = region or [None] * n
    size = np.broadcast_to(np.asarray(radius, dtype=float) * PIXEL_ARCSEC, n).copy()
    size[[text is not None for text in texts]] = np.nan
    return SourceTable(names or [f"s{i:05d}" for i in range(n)], ra, dec, size, texts, [None] * n)


def background(generator: np.random.Generator, density: float = DENSITY, half: float = HALF) -> tuple[Float64s, ...]:
    """A uniform background over a square detector."""
    n = generator.poisson(density * (2 * half) ** 2)
    x, y = generator.uniform(CENTRE - half, CENTRE + half, (2, n))
    return x, y


def with_source(
    generator: np.random.Generator, field: tuple[Float64s, ...], x: float, y: float, counts: float, sigma: float = 1.5
) -> tuple[Float64s, ...]:
    """The field with a Gaussian source of a Poisson number of counts."""
    n = generator.poisson(counts)
    own = generator.normal(0, sigma, (2, n)) + np.array([[CENTRE + x], [CENTRE + y]])
    return np.concatenate([field[0], own[0]]), np.concatenate([field[1], own[1]])


def net(aperture: Aperture) -> tuple[float, float]:
    """Background-subtracted counts and their Poisson variance."""
    n, m = len(aperture.events), len(aperture.background)
    return n - m / aperture.scale, n + m / aperture.scale**2


def everywhere(field: tuple[Float64s, ...]) -> ExposedArea | None:
    return ExposedArea.of(*field)


# Counts --------------------------------------------------------------------------------------------------------------


def test_net_counts_are_the_sources_over_many_draws() -> None:
    generator = np.random.default_rng(11)
    places = [(0, 0), (200, 150), (-300, 220), (-180, -310), (330, -270)]
    truth = np.array([0.0, 10.0, 50.0, 300.0, 2000.0])
    sources = catalogue(*np.array(places).T, 8)
    pulls, scales = [], []
    for _ in range(40):
        field = background(generator)
        for (x, y), counts in zip(places, truth, strict=True):
            field = with_source(generator, field, x, y, counts)
        found = extract(*field, PLANE, sources, ExposedArea.of(*field))
        assert [aperture.source for aperture in found] == [0, 1, 2, 3, 4]
        assert all(aperture.flags == () for aperture in found)
        values = np.array([net(aperture) for aperture in found])
        pulls.append((values[:, 0] - truth) / np.sqrt(truth + DENSITY * np.pi * 64 * (1 + 1 / 21)))
        scales += [aperture.scale for aperture in found]
    # Each pull is standard normal where the subtraction is right: the mean of 200 of them has an error of 0.07.
    assert abs(np.mean(pulls)) < 0.25
    assert 0.8 < np.std(pulls) < 1.2
    np.testing.assert_allclose(scales, 5**2 - 2**2, rtol=0.02)


def test_a_flare_shows_in_the_background_and_not_in_the_source_less_it() -> None:
    generator = np.random.default_rng(12)
    quiet, flare = background(generator), background(generator, 3 * DENSITY)
    x, y = np.concatenate([quiet, flare], axis=1)
    time = np.concatenate([generator.uniform(0, 1000, len(quiet[0])), generator.uniform(400, 500, len(flare[0]))])
    (aperture,) = extract(x, y, PLANE, catalogue([50], [80], 12), ExposedArea.of(x, y))
    in_flare = [np.count_nonzero((time[i] >= 400) & (time[i] < 500)) for i in (aperture.events, aperture.background)]
    area = np.pi * 12**2
    assert in_flare[1] == pytest.approx(area * 21 * DENSITY * 3.1, rel=0.05)
    assert in_flare[0] - in_flare[1] / aperture.scale == pytest.approx(0, abs=4 * np.sqrt(in_flare[0]))
    assert in_flare[0] > 100


def test_a_table_without_sources_finds_none() -> None:
    field = background(np.random.default_rng(14))
    assert extract(*field, PLANE, catalogue([], [], 8), everywhere(field)) == []


def test_neighbours_are_cut_out_of_the_background() -> None:
    generator = np.random.default_rng(13)
    field = with_source(generator, background(generator), 30, 0, 20_000, sigma=2.0)
    alone = catalogue([0], [0], 8)
    both = catalogue([0, 30], [0, 0], 8)
    coverage = ExposedArea.of(*field)
    (swamped,) = extract(*field, PLANE, alone, coverage)
    assert net(swamped)[0] < -500
    first, second = extract(*field, PLANE, both, coverage)
    # The neighbour's enlarged aperture has (1.5 × 8)² π pixels, all of them in the annulus from 16 to 40.
    assert first.scale == pytest.approx(21 - 1.5**2, rel=0.02)
    assert net(first)[0] == pytest.approx(0, abs=4 * np.sqrt(net(first)[1]))
    assert net(second)[0] == pytest.approx(20_000, abs=4 * np.sqrt(20_100))


# Overlap -------------------------------------------------------------------------------------------------------------


def test_overlapping_apertures_share_no_event_and_lose_no_area_twice() -> None:
    generator = np.random.default_rng(14)
    field = background(generator, 2.0, 150)
    d, r = 12.0, 10.0
    first, second = extract(*field, PLANE, catalogue([0, d], [0, 0], r), ExposedArea.of(*field))
    assert first.flags == second.flags == ("overlap",)
    assert not set(first.events) & set(second.events)
    x, y = field[0] - CENTRE, field[1] - CENTRE
    in_either = (np.hypot(x, y) <= r) | (np.hypot(x - d, y) <= r)
    np.testing.assert_array_equal(np.union1d(first.events, second.events), np.flatnonzero(in_either))
    assert np.all(x[first.events] <= d / 2)
    # Each keeps its circle less the segment beyond the middle.
    segment = r**2 * np.arccos(d / 2 / r) - d / 2 * np.sqrt(r**2 - d**2 / 4)
    assert first.area_fraction == pytest.approx(1 - segment / (np.pi * r**2), abs=0.01)
    assert len(first.events) / 2.0 == pytest.approx(np.pi * r**2 - segment, rel=0.15)


def test_the_larger_aperture_reaches_farther_where_two_overlap() -> None:
    generator = np.random.default_rng(15)
    field = background(generator, 2.0, 150)
    small, large = extract(*field, PLANE, catalogue([0, 20], [0, 0], [8, 16]), ExposedArea.of(*field))
    x, y = field[0] - CENTRE, field[1] - CENTRE
    nearer = np.hypot(x, y) / 8 < np.hypot(x - 20, y) / 16
    np.testing.assert_array_equal(small.events, np.flatnonzero((np.hypot(x, y) <= 8) & nearer))
    np.testing.assert_array_equal(large.events, np.flatnonzero((np.hypot(x - 20, y) <= 16) & ~nearer))


def test_a_pulsar_keeps_its_aperture_in_its_nebula_and_has_the_nebula_for_background() -> None:
    generator = np.random.default_rng(16)
    field = background(generator)
    field = with_source(generator, field, 0, 0, 6000, sigma=40.0)
    field = with_source(generator, field, 20, 0, 400)
    pulsar, nebula = extract(*field, PLANE, catalogue([20, 0], [0, 0], [6, 90]), ExposedArea.of(*field))
    x, y = field[0] - CENTRE, field[1] - CENTRE
    np.testing.assert_array_equal(pulsar.events, np.flatnonzero(np.hypot(x - 20, y) <= 6))
    np.testing.assert_array_equal(nebula.events, np.flatnonzero((np.hypot(x, y) <= 90) & (np.hypot(x - 20, y) > 6)))
    # The nebula is 400 events/(2π 40²) … bright: without it in the background the pulsar would have some 70 too many.
    assert net(pulsar)[0] == pytest.approx(400, abs=4 * np.sqrt(net(pulsar)[1]) + 10)
    assert nebula.area_fraction == pytest.approx(1 - 6**2 / 90**2, abs=0.005)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_table_does_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    field = background(generator, 0.2, 200)
    n = 60
    x, y = generator.uniform(-200, 200, (2, n))
    x[:3], y[:3] = x[3:6], y[3:6]  # the same place twice, too
    radius = generator.uniform(2, 20, n)
    radius[0] = radius[3]  # and of the same size: then the name decides
    names = [f"s{i}" for i in range(n)]
    coverage = ExposedArea.of(*field)
    straight = extract(*field, PLANE, catalogue(x, y, radius, names=names), coverage)
    order = generator.permutation(n)
    table = catalogue(x[order], y[order], radius[order], names=[names[i] for i in order])
    shuffled = {table.source_id[aperture.source]: aperture for aperture in extract(*field, PLANE, table, coverage)}
    assert len(shuffled) == len(straight)
    for one in straight:
        other = shuffled[names[one.source]]
        np.testing.assert_array_equal(one.events, other.events)
        np.testing.assert_array_equal(one.background, other.background)
        assert (one.area_fraction, one.flags) == (other.area_fraction, other.flags)
        assert one.scale == other.scale or (np.isnan(one.scale) and np.isnan(other.scale))


# Edges and gaps ------------------------------------------------------------------------------------------------------


def test_only_the_part_on_the_detector_counts_at_its_edge() -> None:
    generator = np.random.default_rng(17)
    pulls = []
    for _ in range(30):
        field = background(generator, 0.5, 200)
        (aperture,) = extract(*field, PLANE, catalogue([200], [0], 20), ExposedArea.of(*field))
        assert "edge" in aperture.flags
        assert aperture.area_fraction == pytest.approx(0.5, abs=0.15)  # an edge is known to half a cell, here 3.5
        value, variance = net(aperture)
        pulls.append(value / np.sqrt(variance))
    assert abs(np.mean(pulls)) < 1.0  # what half a cell of the aperture's width is worth


def test_a_gap_between_chips_is_no_exposure() -> None:
    generator = np.random.default_rng(18)
    fractions, values = [], []
    for _ in range(20):
        field = background(generator, 1.0, 250)
        on_chip = np.abs(field[0] - CENTRE) > 12
        x, y = field[0][on_chip], field[1][on_chip]
        coverage = ExposedArea.of(x, y)
        assert coverage is not None
        assert coverage.measured
        across, beside = extract(x, y, PLANE, catalogue([0, 60], [0, 100], 40), coverage)
        fractions.append(across.area_fraction)
        values.append(net(across)[0] / np.sqrt(net(across)[1]))
        assert "edge" in across.flags
        assert beside.flags == ("edge",) or beside.area_fraction > 0.9
    # The strip of ±12 pixels through a circle of 40.
    strip = 2 * (12 * np.sqrt(40**2 - 12**2) + 40**2 * np.arcsin(12 / 40)) / (np.pi * 40**2)
    assert np.mean(fractions) == pytest.approx(1 - strip, abs=0.03)
    assert abs(np.mean(values)) < 1.5


def test_background_events_lie_where_its_area_is_counted() -> None:
    x, y = background(np.random.default_rng(34), 0.5, 200)
    left = x < CENTRE
    (aperture,) = extract(x, y, PLANE, catalogue([-15], [0], 10), ExposedArea.of(x[left], y[left]))
    assert np.max(x[aperture.background]) <= CENTRE
    assert np.max(x[extract(x, y, PLANE, catalogue([-15], [0], 10), ExposedArea.of(x, y))[0].background]) > CENTRE + 20
    assert net(aperture)[0] == pytest.approx(0, abs=4 * np.sqrt(net(aperture)[1]))


def test_sources_off_the_detector_are_not_found() -> None:
    generator = np.random.default_rng(19)
    field = background(generator)
    away = HALF + 60
    table = catalogue([0, away, 0, -4 * HALF, 400], [0, 0, away, 0, 400], 10)
    found = extract(*field, PLANE, table, ExposedArea.of(*field))
    assert [aperture.source for aperture in found] == [0, 4]


def test_a_crowd_leaves_no_background() -> None:
    generator = np.random.default_rng(20)
    field = background(generator)
    x, y = np.meshgrid(np.arange(-90, 91, 10), np.arange(-90, 91, 10))
    found = extract(*field, PLANE, catalogue(x.ravel(), y.ravel(), 5), ExposedArea.of(*field))
    middle = next(a for a in found if np.hypot(a.x - CENTRE, a.y - CENTRE) < 1)
    assert {"crowded", "no_background"} <= set(middle.flags)
    assert len(middle.background) == 0
    assert np.isnan(middle.scale)


def test_a_background_is_widened_until_it_is_large_enough() -> None:
    generator = np.random.default_rng(21)
    field = background(generator)
    turn = np.arange(12) * np.pi / 6
    ring = np.stack([30 * np.cos(turn), 30 * np.sin(turn)])  # neighbours that fill the first annulus
    table = catalogue([0, *ring[0]], [0, *ring[1]], 8)
    aperture = extract(*field, PLANE, table, ExposedArea.of(*field))[0]
    assert aperture.scale >= 10
    assert "crowded" not in aperture.flags
    apart = np.hypot(field[0] - aperture.x, field[1] - aperture.y)[aperture.background]
    assert np.max(apart) > 5 * 8
    assert net(aperture)[0] == pytest.approx(0, abs=4 * np.sqrt(net(aperture)[1]))


def test_a_small_aperture_has_a_background_of_ten_arcseconds() -> None:
    generator = np.random.default_rng(22)
    field = background(generator)
    (aperture,) = extract(*field, PLANE, catalogue([0], [0], 2), ExposedArea.of(*field))
    outer = 10 / PIXEL_ARCSEC
    assert aperture.scale == pytest.approx((outer**2 - 4**2) / 2**2, rel=0.02)


# Where on the sky ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0, 0.0), (359.9999, -45.0), (0.0001, 60.0), (77.0, 89.99), (77.0, -89.9999)]
)
def test_a_field_is_the_same_wherever_it_lies(ra: float, dec: float) -> None:
    generator = np.random.default_rng(23)
    field = with_source(generator, background(generator), 150, -80, 500)
    coverage = ExposedArea.of(*field)
    places = [0, 150, -320, 0], [0, -80, 310, 495]
    plane = plane_at(ra, dec)
    table = catalogue(*places, 8, plane)
    here, there = extract(*field, PLANE, catalogue(*places, 8), coverage), extract(*field, plane, table, coverage)
    assert [a.source for a in there] == [0, 1, 2, 3]
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.events, other.events)
        assert other.scale == pytest.approx(one.scale, rel=2e-3)
        assert one.flags == other.flags
    assert net(there[1])[0] == pytest.approx(500, abs=100)


def test_a_table_of_the_whole_sky_gives_the_fields_own() -> None:
    generator = np.random.default_rng(24)
    field = background(generator)
    inside = catalogue([0, 100], [0, 50], 8)
    n = 5000
    ra, dec = generator.uniform(0, 360, n), np.degrees(np.arcsin(generator.uniform(-1, 1, n)))
    far = np.hypot(ra - 150, dec - 2) > 2
    table = SourceTable(
        [*(f"sky{i}" for i in range(np.count_nonzero(far))), *inside.source_id],
        np.concatenate([ra[far], inside.ra]),
        np.concatenate([dec[far], inside.dec]),
        np.concatenate([np.full(np.count_nonzero(far), 4.0), inside.radius]),
        [None] * (np.count_nonzero(far) + 2),
        [None] * (np.count_nonzero(far) + 2),
    )
    found = extract(*field, PLANE, table, ExposedArea.of(*field))
    assert [table.source_id[a.source] for a in found] == inside.source_id


# Shapes --------------------------------------------------------------------------------------------------------------


def test_a_region_of_the_table_is_the_aperture() -> None:
    generator = np.random.default_rng(25)
    field = background(generator, 0.5, 200)
    text = f"physical;ellipse({CENTRE},{CENTRE},30,10,20)-circle({CENTRE},{CENTRE},5)"
    table = catalogue([0, 60], [0, 0], [np.nan, 6], region=[text, None])
    first, second = extract(*field, PLANE, table, ExposedArea.of(*field))
    shape = parse_region(text, PLANE)
    np.testing.assert_array_equal(first.events, np.flatnonzero(shape.contains(*field)))
    apart = np.hypot(field[0] - CENTRE, field[1] - CENTRE)[first.background]
    assert np.min(apart) > 60
    assert first.scale * shape.area * 0.5 == pytest.approx(len(first.background), rel=0.05)
    assert "overlap" not in first.flags
    assert len(second.events) == pytest.approx(np.pi * 36 * 0.5, rel=0.5)


def test_a_region_that_a_file_cannot_have_names_its_source() -> None:
    field = background(np.random.default_rng(26))
    with pytest.raises(ConfigError, match="region of source 's00000'"):
        extract(*field, PLANE, catalogue([0], [0], np.nan, region=["circle(1,2,0)"]), ExposedArea.of(*field))


def test_regions_that_come_with_the_file() -> None:
    generator = np.random.default_rng(27)
    pulls = []
    source = parse_region(f"ellipse({CENTRE},{CENTRE},12,8,30)", PLANE)
    around = parse_region(
        f"ellipse({CENTRE},{CENTRE},60,40,30)-ellipse({CENTRE},{CENTRE},12,8,30)-circle({CENTRE + 30},{CENTRE},9)",
        PLANE,
    )
    for _ in range(30):
        field = with_source(generator, background(generator, 0.3, 70), 0, 0, 200)
        field = with_source(generator, field, 30, 0, 3000)
        aperture = apply_regions(*field, source, around, ExposedArea.of(*field))
        assert aperture.flags == ()
        assert aperture.scale == pytest.approx((2400 - 96 - 81) / 96, rel=0.01)
        assert not set(aperture.events) & set(aperture.background)
        pulls.append((net(aperture)[0] - 200) / np.sqrt(200 + 0.3 * np.pi * 96))
    assert abs(np.mean(pulls)) < 0.7
    assert 0.6 < np.std(pulls) < 1.4


def test_without_a_background_region_the_rest_of_the_cut_out_is_it() -> None:
    field = background(np.random.default_rng(28), 0.3, 70)
    source = parse_region(f"circle({CENTRE},{CENTRE},8)", PLANE)
    aperture = apply_regions(*field, source, None, None)
    assert aperture.scale == pytest.approx((140**2 - np.pi * 16**2) / (np.pi * 64), rel=0.03)
    assert net(aperture)[0] == pytest.approx(0, abs=4 * np.sqrt(net(aperture)[1]))


# What always holds ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-250, 250), st.floats(-250, 250), st.floats(0.5, 120)), min_size=0, max_size=12),
    st.integers(0, 3000),
    st.integers(0, 2**32 - 1),
)
def test_invariants(places: list[tuple[float, float, float]], n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.uniform(CENTRE - 200, CENTRE + 200, (2, n))
    x[generator.random(n) < 0.01] = np.nan
    table = catalogue(*np.array(places).reshape(-1, 3).T)
    found = extract(x, y, PLANE, table, ExposedArea.of(x, y))
    taken = np.concatenate([a.events for a in found]) if found else np.empty(0)
    assert len(np.unique(taken)) == len(taken)
    assert [a.source for a in found] == sorted({a.source for a in found})
    for aperture in found:
        radius = places[aperture.source][2]
        apart = np.hypot(x - aperture.x, y - aperture.y)
        assert np.all(apart[aperture.events] <= radius * (1 + 1e-9))
        assert np.all(apart[aperture.background] > 2 * radius * (1 - 1e-9))
        assert not set(aperture.events) & set(aperture.background)
        assert 0 < aperture.area_fraction <= 1
        assert ("no_background" in aperture.flags) == bool(np.isnan(aperture.scale))
        assert np.isnan(aperture.scale) or aperture.scale >= 1
        assert len(aperture.background) == 0 or aperture.scale > 0
        assert aperture.area_fraction == 1 or {"edge", "overlap"} & set(aperture.flags) or aperture.area_fraction > 0.97


def test_nothing_gives_nothing() -> None:
    field = background(np.random.default_rng(29))
    none = np.empty(0)
    assert extract(*field, PLANE, catalogue([], [], []), ExposedArea.of(*field)) == []
    assert extract(none, none, PLANE, catalogue([0], [0], 8), ExposedArea.of(none, none)) == []
    behind = SourceTable(["b"], np.array([330.0]), np.array([-2.0]), np.array([4.0]), [None], [None])
    assert extract(*field, PLANE, behind, ExposedArea.of(*field)) == []


# Coverage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [20_000, 100_000, 1_000_000])
def test_a_map_has_the_detectors_area_though_a_bright_source_is_in_it(n: int) -> None:
    generator = np.random.default_rng(30)
    x, y = generator.uniform(0, 2000, (2, n))
    own = generator.normal(500, 4, (2, 2 * n))  # two thirds of all events are one source's
    coverage = ExposedArea.of(np.concatenate([x, own[0]]), np.concatenate([y, own[1]]))
    assert coverage is not None
    assert coverage.measured
    assert np.sum(coverage.exposed) * coverage.width * coverage.height == pytest.approx(2000**2, rel=2e-3)
    at = generator.uniform(0, 2000, (2, 100_000))
    assert np.mean(coverage.contains(*at)) > 0.999
    assert not np.any(coverage.contains(np.array([-200.0, 2300.0]), np.array([500.0, 500.0])))


def test_chips_of_unlike_background_are_both_exposed() -> None:
    generator = np.random.default_rng(31)
    bright, faint = generator.uniform(0, 1000, (2, 120_000)), generator.uniform(0, 1000, (2, 40_000))
    x, y = np.concatenate([bright[0], faint[0] + 1040]), np.concatenate([bright[1], faint[1]])
    coverage = ExposedArea.of(x, y)
    assert coverage is not None
    at = generator.uniform(30, 970, (2, 50_000))
    assert np.mean(coverage.contains(*at)) > 0.999
    assert np.mean(coverage.contains(at[0] + 1040, at[1])) > 0.99
    assert not np.any(coverage.contains(np.full(50, 1020.0), np.linspace(50, 950, 50)))


def test_extended_emission_is_not_surrounded_by_gaps() -> None:
    generator = np.random.default_rng(32)
    x, y = generator.uniform(0, 1000, (2, 40_000))
    cluster = generator.normal(500, 100, (2, 400_000))
    on_chip = np.all((cluster > 0) & (cluster < 1000), axis=0)
    coverage = ExposedArea.of(np.concatenate([x, cluster[0][on_chip]]), np.concatenate([y, cluster[1][on_chip]]))
    assert coverage is not None
    assert np.mean(coverage.contains(*generator.uniform(30, 970, (2, 50_000)))) > 0.99


def test_a_sparse_field_is_its_outline() -> None:
    generator = np.random.default_rng(33)
    x, y = generator.uniform(0, 1000, (2, 800))
    coverage = ExposedArea.of(x, y)
    assert coverage is not None
    assert not coverage.measured
    assert np.sum(coverage.exposed) * coverage.width * coverage.height == pytest.approx(1e6, rel=0.05)
    assert ExposedArea.of(np.array([1.0, 2.0]), np.array([3.0, 5.0])) is None
    assert ExposedArea.of(np.arange(50.0), 2 * np.arange(50.0)) is None
