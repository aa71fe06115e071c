"""Sources out of event files, from the file's bytes to detections, on simulated fields of which everything is known."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from event_files import CENTRE, PIXEL_ARCSEC, sky_keywords, write_event_file
from lexray.errors import RefusedInput
from lexray.events.eventlist import Bands, EventList
from lexray.events.extraction.source_table import SourceTable
from lexray.events.fits.drop_causes import CAUSES
from lexray.events.reader import ReadOptions, ReadResult, read
from lexray.events.segments import Segmentation
from lexray.ingest.discovery import find_event_files

Float64s = NDArray[np.float64]

START, STOP = 1000.0, 11_000.0
#: When the background is ten times as bright.
FLARE = (4000.0, 5000.0)
#: Half a side of the simulated chip, pixels.
HALF = 300.0
RA, DEC = 150.0, 2.0


@dataclass(frozen=True)
class Simulated:
    """Events of a field.

    Attributes
    ----------
    time, x, y : f8[N]
        Seconds, sky pixels.
    pi : i8[N]
    """

    time: Float64s
    x: Float64s
    y: Float64s
    pi: NDArray[np.int64]

    def write(self, path: Path, sky: bool = True, **header: Any) -> Path:
        columns = {"time": self.time, "pi": self.pi, "x": self.x, "y": self.y}
        keywords = sky_keywords(3, 4, RA, DEC) if sky else {}
        return write_event_file(path, "chandra", columns, {"GTI": [(START, STOP)]}, {**keywords, **header})

    def within(self, x: float, y: float, radius: float) -> NDArray[np.bool_]:
        """Events in a circle, relative to the field's centre."""
        return np.hypot(self.x - CENTRE - x, self.y - CENTRE - y) <= radius

    @property
    def good(self) -> NDArray[np.bool_]:
        """Events that the reader should keep, wherever they are."""
        kev = (self.pi - 0.5) * 0.0146
        return (self.time >= START) & (self.time <= STOP) & (kev >= 0.5) & (kev <= 7.0)


def simulate(seed: int, *sources: tuple[float, float, int], background: int = 20_000, flare: int = 0) -> Simulated:
    """A field of a uniform background, which flares, and point sources at (x, y) with so many counts."""
    generator = np.random.default_rng(seed)
    n = [background, flare, *(counts for _, _, counts in sources)]
    own = [generator.normal((x, y), 1.0, (counts, 2)) for x, y, counts in sources]
    places = np.concatenate([generator.uniform(-HALF, HALF, (background + flare, 2)), *own]) + CENTRE
    time = generator.uniform(START - 100, STOP + 100, sum(n))  # some before and behind the good time
    time[background : background + flare] = generator.uniform(*FLARE, flare)
    order = np.argsort(time)
    pi = generator.integers(20, 600, sum(n))
    return Simulated(time[order], places[order, 0], places[order, 1], pi[order])


def table_of(
    *places: tuple[float, float, float], names: list[str] | None = None, arf: str | None = None
) -> SourceTable:
    """Sources at pixels relative to the field's centre, with radii in pixels; positions by astropy."""
    x, y, radius = np.array(places).T
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [RA, DEC], [CENTRE, CENTRE]
    wcs.wcs.cdelt = [-PIXEL_ARCSEC / 3600, PIXEL_ARCSEC / 3600]
    ra, dec = wcs.wcs_pix2world(x + CENTRE, y + CENTRE, 1)
    n = len(places)
    return SourceTable(names or [f"s{i}" for i in range(n)], ra, dec, radius * PIXEL_ARCSEC, [None] * n, [arf] * n)


def named(*sources: tuple[str, float, float, float]) -> SourceTable:
    """Sources by name, RA, Dec and radius in arcsec."""
    names, ra, dec, radius = zip(*sources, strict=True)
    nothing: list[str | None] = [None] * len(names)
    return SourceTable(list(names), np.array(ra), np.array(dec), np.array(radius), nothing, nothing)


def absolute(events: EventList) -> Float64s:
    return events.time + events.t_ref


def balances(reading: ReadResult, n: int) -> None:
    """Events in are those kept and those dropped for each cause."""
    assert tuple(reading.dropped) == CAUSES
    assert reading.n_in == n == sum(map(len, reading.detections)) + sum(reading.dropped.values())


# Fields --------------------------------------------------------------------------------------------------------------


def test_sources_of_a_field_have_their_own_events_and_backgrounds(tmp_path: Path) -> None:
    field = simulate(1, (0, 0, 600), (120, -90, 200), flare=20_000)
    sources = table_of((0, 0, 8), (120, -90, 8), (200, 200, 8), (5000, 0, 8))
    file = field.write(tmp_path / "field.fits")
    reading = read(file, ReadOptions(sources=sources))
    balances(reading, len(field.time))
    first, second, third = reading.detections  # the fourth lies off the chip
    places = ((0, 0), (120, -90), (200, 200))
    inside = [field.good & field.within(x, y, 8) for x, y in places]
    for name, events, own, (x, y) in zip(("s0", "s1", "s2"), reading.detections, inside, places, strict=True):
        assert events.detection_id == f"chandra:10027:acis:{name}"
        assert events.source_id == name
        assert "whole_field" not in events.flags
        np.testing.assert_allclose(absolute(events), field.time[own], atol=1e-9)
        assert events.t_ref == START
        assert events.background is not None
        assert events.background.scale == pytest.approx((2.5 * 8 / 8) ** 2 * 4 - 4, rel=0.02)  # from 16 to 40 pixels
        ring = field.good & field.within(x, y, 40) & ~field.within(x, y, 16)
        np.testing.assert_allclose(events.background.time, field.time[ring] - START, atol=1e-9)
        assert np.all(events.gti.contains(events.background.time))
    assert reading.dropped["outside_sources"] == np.count_nonzero(field.good & ~np.any(inside, axis=0))
    assert reading.dropped["outside_gti"] == np.count_nonzero((field.time < START) | (field.time > STOP))
    assert (first.ra, first.dec) == pytest.approx((sources.ra[0], sources.dec[0]))
    # The flare's events fill three in four of an empty aperture's; less the background's they are no more than chance.
    assert third.background is not None
    flaring = [
        np.count_nonzero((t >= FLARE[0] - START) & (t <= FLARE[1] - START)) for t in (third.time, third.background.time)
    ]
    assert flaring[0] > 0.3 * len(third)
    assert flaring[0] - flaring[1] / third.background.scale == pytest.approx(0, abs=4 * np.sqrt(flaring[0]))
    in_band = np.mean(field.good)
    for events, counts in ((first, 600), (second, 200)):
        assert events.background is not None
        net = len(events) - len(events.background.time) / events.background.scale
        assert net == pytest.approx(counts * in_band, abs=4 * np.sqrt(len(events)))


def test_overlapping_apertures_count_no_event_twice(tmp_path: Path) -> None:
    field = simulate(2, background=60_000)
    reading = read(
        field.write(tmp_path / "f.fits"), ReadOptions(sources=table_of((0, 0, 20), (25, 0, 20), (10, 5, 20)))
    )
    balances(reading, len(field.time))
    in_any = field.within(0, 0, 20) | field.within(25, 0, 20) | field.within(10, 5, 20)
    together = np.sort(np.concatenate([absolute(events) for events in reading.detections]))
    np.testing.assert_allclose(together, field.time[field.good & in_any], atol=1e-9)
    assert all("overlap" in events.flags for events in reading.detections)


def test_a_source_without_events_in_the_bands_is_no_detection_and_balances(tmp_path: Path) -> None:
    field = simulate(3)
    field.pi[field.within(50, 50, 10)] = 5  # 66 eV
    reading = read(field.write(tmp_path / "f.fits"), ReadOptions(sources=table_of((0, 0, 8), (50, 50, 8))))
    balances(reading, len(field.time))
    assert [events.source_id for events in reading.detections] == ["s0"]


def test_a_field_in_which_no_source_lies_gives_none_and_balances(tmp_path: Path) -> None:
    field = simulate(4, background=500)
    reading = read(field.write(tmp_path / "f.fits"), ReadOptions(sources=table_of((9000, 0, 8))))
    balances(reading, 500)
    assert reading.detections == []
    assert reading.dropped["outside_sources"] == np.count_nonzero(field.good)


def test_events_without_a_position_are_in_no_aperture(tmp_path: Path) -> None:
    field = simulate(5, (0, 0, 100))
    near = np.flatnonzero(field.within(0, 0, 8))
    field.x[near[::2]], field.y[near[1]], field.x[near[3]], field.y[near[5]] = np.nan, np.inf, 1e300, -1e200
    reading = read(field.write(tmp_path / "f.fits"), ReadOptions(sources=table_of((0, 0, 8))))
    balances(reading, len(field.time))
    assert len(reading.events) == np.count_nonzero(field.good & field.within(0, 0, 8))


def test_segments_of_sources_balance_too(tmp_path: Path) -> None:
    field = simulate(6, (0, 0, 300), (100, 0, 20))
    wanted = ReadOptions(sources=table_of((0, 0, 6), (100, 0, 6)), segments=Segmentation(2500), min_events=20)
    reading = read(field.write(tmp_path / "f.fits"), wanted)
    balances(reading, len(field.time))
    assert [e.detection_id for e in reading.detections] == [f"chandra:10027:acis:s0:s{i:04d}" for i in range(4)]
    assert reading.dropped["too_few"] == np.count_nonzero(field.good & field.within(100, 0, 6))
    for i, events in enumerate(reading.detections):
        assert events.background is not None
        assert np.all((events.background.time >= 0) & (events.background.time <= 2500))
        assert events.t_ref == START + 2500 * i


def test_a_field_without_sky_positions_is_refused_where_sources_are_looked_for(tmp_path: Path) -> None:
    file = simulate(7, background=100).write(tmp_path / "f.fits", sky=False)
    assert len(read(file).detections) == 1
    with pytest.raises(RefusedInput) as refused:
        read(file, ReadOptions(sources=table_of((0, 0, 8))))
    assert refused.value.reason == "no_wcs"


@pytest.mark.parametrize(
    "said",
    [
        {"TCUNI3": "furlong"},
        {"TCDLT3": 0.0},
        {"TCDLT3": -1e-300},
        {"TCDLT4": 1e300},
        {"TCRVL3": None},
        {"RADESYS": "FK4"},
    ],
)
def test_a_plane_that_is_none_is_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    file = simulate(7, background=100).write(tmp_path / "f.fits", **said)
    with pytest.raises(RefusedInput) as refused:
        read(file, ReadOptions(sources=table_of((0, 0, 8))))
    assert refused.value.reason == "bad_wcs"


def test_a_projection_of_damaged_letters_is_refused(tmp_path: Path) -> None:
    file = simulate(7, background=100).write(tmp_path / "f.fits")
    file.write_bytes(file.read_bytes().replace(b"RA---TAN", b"RA---TA\xff"))
    with pytest.raises(RefusedInput) as refused:
        read(file, ReadOptions(sources=table_of((0, 0, 8))))
    assert refused.value.reason == "bad_wcs"


def test_a_plane_that_lies_far_away_has_no_sources(tmp_path: Path) -> None:
    field = simulate(7, background=100)
    reading = read(field.write(tmp_path / "f.fits", TCRPX3=1e200), ReadOptions(sources=table_of((0, 0, 8))))
    balances(reading, 100)
    assert reading.detections == []


def test_unsorted_events_are_sorted_counted_and_flagged_where_they_belong(tmp_path: Path) -> None:
    field = simulate(8, (0, 0, 200), background=5000)
    at = np.flatnonzero(field.good & field.within(0, 0, 8))[:2]
    swapped = field.time.copy()
    swapped[at] = swapped[at[::-1]]
    shuffled = Simulated(swapped, field.x, field.y, field.pi)
    reading = read(shuffled.write(tmp_path / "f.fits"), ReadOptions(sources=table_of((0, 0, 8), (100, 100, 8))))
    assert reading.unsorted == np.count_nonzero(np.diff(swapped) < 0) > 0
    first, second = reading.detections
    assert "unsorted" in first.flags
    assert "unsorted" not in second.flags
    np.testing.assert_allclose(absolute(first), field.time[field.good & field.within(0, 0, 8)], atol=1e-9)


def test_an_effective_area_by_the_source_table(tmp_path: Path) -> None:
    field = simulate(9, (0, 0, 100))
    arf = tmp_path / "s0.arf"
    arf.write_bytes(_arf(321.0))
    events = read(field.write(tmp_path / "f.fits"), ReadOptions(sources=table_of((0, 0, 8), arf=str(arf)))).events
    assert events.area == pytest.approx((321, 321, 321))


# Files of one source -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "good"), [(-30.0, 100.0), (30.0, 60.0)])
def test_good_times_are_those_of_the_chip_that_saw_the_source(tmp_path: Path, x: float, good: float) -> None:
    """A photon that fell beyond the gap, on a chip that observed for longer or shorter, changes nothing."""
    generator = np.random.default_rng(1)
    places = generator.normal(0, 1.5, (2, 2000)) + np.array([[x], [0.0]])
    places[0, 0] *= -1
    columns = {
        "time": 1000 + np.sort(generator.uniform(0, 60, 2000)),
        "pi": np.full(2000, 100),
        "ccd_id": np.where(places[0] < 0, 1, 2),
        "x": CENTRE + places[0],
        "y": CENTRE + places[1],
    }
    gti = {"GTI1": [(1000.0, 1100.0)], "GTI2": [(1000.0, 1060.0)]}
    file = write_event_file(tmp_path / "a.fits", "chandra", columns, gti, sky_keywords(4, 5, RA, DEC))
    (events,) = read(file, ReadOptions(sources=table_of((x, 0, 70)))).detections
    assert events.gti.ontime == pytest.approx(good)
    assert events.exposure == pytest.approx(0.9 * good, rel=2e-3)
    assert len(events) == 2000


def test_the_backgrounds_scale_knows_how_long_each_chip_observed(tmp_path: Path) -> None:
    """Background alone, beside a gap between chips of 10 and 6 ks: the annulus predicts the aperture's."""
    generator = np.random.default_rng(2)
    n = 100_000
    x, y = generator.uniform(-HALF, HALF, (2, n))
    chip = np.where(x < 0, 1, 2)
    time = 1000 + generator.uniform(0, 10_000, n)
    seen = (chip == 1) | (time <= 7000)
    columns = {"time": time, "pi": np.full(n, 100), "ccd_id": chip, "x": CENTRE + x, "y": CENTRE + y}
    columns = {name: values[seen][np.argsort(time[seen])] for name, values in columns.items()}
    gti = {"GTI1": [(1000.0, 11_000.0)], "GTI2": [(1000.0, 7000.0)]}
    file = write_event_file(tmp_path / "a.fits", "chandra", columns, gti, sky_keywords(4, 5, RA, DEC))
    (events,) = read(file, ReadOptions(sources=table_of((-25, 0, 22)))).detections
    assert events.background is not None
    expected = len(events.background.time) / events.background.scale
    assert len(events) == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_the_area_is_that_of_what_an_edge_leaves_of_the_aperture(tmp_path: Path) -> None:
    file = simulate(12, background=60_000).write(tmp_path / "a.fits", SIM_Z=-190.14)
    inside, at_edge = read(file, ReadOptions(sources=table_of((0, 0, 20), (HALF, 100, 20)))).detections
    assert inside.area is not None
    assert at_edge.area is not None
    assert "edge" in at_edge.flags
    assert at_edge.area[1] / inside.area[1] == pytest.approx(0.5, abs=0.1)


CSC = "acisf14031_000N028_r0016"


def _arf(area: float) -> bytes:
    edges = np.arange(0.3, 10, 0.01)
    columns = [
        fits.Column("ENERG_LO", "1E", unit="keV", array=edges[:-1]),
        fits.Column("ENERG_HI", "1E", unit="keV", array=edges[1:]),
        fits.Column("SPECRESP", "1E", unit="cm**2", array=np.full(len(edges) - 1, area)),
    ]
    return _written(fits.BinTableHDU.from_columns(columns, name="SPECRESP"))


def _regions(inner: float, outer: float) -> bytes:
    """A circle, and a ring around it up to a wider one."""

    def table(name: str, shapes: list[str], radii: list[float]) -> fits.BinTableHDU:
        n = len(shapes)
        columns = [
            fits.Column("SHAPE", "16A", array=shapes),
            fits.Column("X", "1D", unit="pixel", array=[CENTRE] * n),
            fits.Column("Y", "1D", unit="pixel", array=[CENTRE] * n),
            fits.Column("R", "2D", unit="pixel", array=[[radius, 0.0] for radius in radii]),
            fits.Column("ROTANG", "1D", unit="deg", array=[0.0] * n),
            fits.Column("COMPONENT", "1J", array=[1] * n),
        ]
        return fits.BinTableHDU.from_columns(columns, name=name)

    background = table("BKGREG", ["Circle", "!Circle"], [outer, inner])
    return _written(table("SRCREG", ["Circle"], [inner]), background)


def _written(*tables: fits.BinTableHDU) -> bytes:
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(out)
    return out.getvalue()


def _of_catalogue(folder: Path, regions: bool = True, arf: bool = True) -> tuple[Simulated, Path]:
    folder.mkdir(exist_ok=True)
    field = simulate(10, (0, 0, 400))
    file = field.write(folder / f"{CSC}_regevt3.fits", OBS_ID="14031", OBI_NUM=0, OBJECT="somewhere")
    if regions:
        (folder / f"{CSC}_reg3.fits").write_bytes(_regions(10, 60))
    if arf:
        (folder / f"{CSC}_arf3.fits").write_bytes(_arf(77.0))
    return field, file


def test_the_catalogues_regions_and_area_are_applied(tmp_path: Path) -> None:
    # A folder's name may look like a region file's.
    field, file = _of_catalogue(tmp_path / "csc_reg3")
    reading = read(file)
    balances(reading, len(field.time))
    events = reading.events
    assert events.detection_id == "chandra:14031:acis:r0016"
    assert events.source_id == "J100000.0+020000"
    np.testing.assert_allclose(absolute(events), field.time[field.good & field.within(0, 0, 10)], atol=1e-9)
    assert events.background is not None
    ring = field.good & field.within(0, 0, 60) & ~field.within(0, 0, 10)
    np.testing.assert_allclose(events.background.time + START, field.time[ring], atol=1e-9)
    assert events.background.scale == pytest.approx(35, rel=0.02)
    assert events.area == pytest.approx((77, 77, 77))
    assert (events.ra, events.dec) == pytest.approx((RA, DEC), abs=1e-6)
    assert "whole_field" not in events.flags
    assert reading.dropped["outside_sources"] == np.count_nonzero(field.good & ~field.within(0, 0, 10))


def test_without_an_arf_beside_it_the_area_is_the_instruments(tmp_path: Path) -> None:
    _, file = _of_catalogue(tmp_path, arf=False)
    assert read(file).events.area is None  # this header does not say which of ACIS's arrays it was
    file = simulate(10, (0, 0, 400)).write(tmp_path / f"{CSC}_regevt3.fits", SIM_Z=-190.14)
    area = read(file).events.area
    assert area is not None
    assert 100 < area[1] < 700


def test_a_catalogue_file_takes_the_tables_name_for_its_position(tmp_path: Path) -> None:
    _, file = _of_catalogue(tmp_path)
    events = read(
        file, ReadOptions(sources=named(("other", 10.0, 2.0, 5.0), ("2CXO J100000.0+020000", RA, DEC, 2.0)))
    ).events
    assert events.source_id == "2CXO J100000.0+020000"
    assert events.detection_id == "chandra:14031:acis:r0016"


def test_without_its_regions_a_catalogue_file_is_refused(tmp_path: Path) -> None:
    _, file = _of_catalogue(tmp_path, regions=False)
    with pytest.raises(RefusedInput, match=f"{CSC}_reg3.fits") as refused:
        read(file)
    assert refused.value.reason == "no_region"


def test_regions_of_another_version_serve_and_a_damaged_area_is_flagged(tmp_path: Path) -> None:
    _, file = _of_catalogue(tmp_path)
    (tmp_path / f"{CSC}_reg3.fits").rename(tmp_path / f"{CSC.replace('N028', 'N031')}_reg3.fits")
    (tmp_path / f"{CSC}_arf3.fits").write_bytes(b"no areas here")
    events = read(file).events
    assert events.detection_id == "chandra:14031:acis:r0016"
    assert "bad_arf" in events.flags


def test_regions_that_come_or_change_make_a_file_another(tmp_path: Path) -> None:
    """Ingest compares a file by its stamp: what lies beside it is part of that."""
    _, file = _of_catalogue(tmp_path, regions=False, arf=False)
    (without,) = find_event_files([str(tmp_path)])
    (tmp_path / f"{CSC}_reg3.fits").write_bytes(_regions(10, 60))
    (first,) = find_event_files([str(tmp_path)])
    (tmp_path / f"{CSC}_reg3.fits").write_bytes(_regions(12, 60) + b" ")
    (second,) = find_event_files([str(tmp_path / "*.fits")])
    assert {found.path for found in (without, first, second)} == {str(file)}
    assert len({found.stamp for found in (without, first, second)}) == 3


def test_an_uploaded_file_looks_at_none_beside_it(tmp_path: Path) -> None:
    field, file = _of_catalogue(tmp_path)
    (tmp_path / f"{CSC}_reg3.fits").write_bytes(b"whatever lies there")
    events = read(file, ReadOptions(csc_products=False)).events
    assert len(events) == np.count_nonzero(field.good)
    assert events.background is None


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("acisfJ1348473p263535_002N021_r0001_regevt3.fits", {}),
        ("a.fits", {"OBS_ID": "14031, 14032"}),
        ("a.fits", {"OBS_ID": "Merged"}),
    ],
)
@pytest.mark.parametrize("csc_products", [True, False])
def test_files_that_mix_observations_are_refused(
    tmp_path: Path, name: str, header: dict[str, Any], csc_products: bool
) -> None:
    file = simulate(11, background=100).write(tmp_path / name, **header)
    with pytest.raises(RefusedInput) as refused:
        read(file, ReadOptions(csc_products=csc_products))
    assert refused.value.reason == "stacked"


def test_a_file_of_one_source_takes_the_tables_name_for_its_position(tmp_path: Path) -> None:
    file = simulate(12, background=200).write(tmp_path / "a.fits", SRCNAME="mine", RA_TARG=RA, DEC_TARG=DEC)
    for sources, name in (
        (named(("far", RA + 1, DEC, 5.0), ("theirs", RA, DEC + 1e-4, 2.0)), "theirs"),
        (named(("far", RA + 1, DEC, 5.0)), "mine"),
        # A source is named by what lies on it, not by a point source beside it as far as a large one reaches.
        (named(("beside", RA, DEC + 100 / 3600, 2.0), ("cluster", RA, DEC + 200 / 3600, 300.0)), "cluster"),
        (named(("beside", RA, DEC + 100 / 3600, 2.0), ("elsewhere", RA + 90, DEC, 300.0)), "mine"),
    ):
        events = read(file, ReadOptions(sources=sources)).events
        assert events.source_id == name
        assert len(events) == np.count_nonzero(simulate(12, background=200).good)


def test_near_the_pole_the_nearest_source_is_nearest_on_the_sky(tmp_path: Path) -> None:
    file = simulate(13, background=200).write(tmp_path / "a.fits", SRCNAME="mine", RA_TARG=0.0, DEC_TARG=89.99)
    # 10° of right ascension are 6″ there.
    sources = named(("north", 0.0, 89.99 + 9 / 3600, 20.0), ("across", 10.0, 89.99, 20.0))
    assert read(file, ReadOptions(sources=sources)).events.source_id == "across"


def test_a_concentrators_file_is_its_source_and_keeps_all_its_events(tmp_path: Path) -> None:
    file = write_event_file(tmp_path / "a.evt", "nicer")
    reading = read(file, ReadOptions(sources=named(("NGC 300 ULX-1", 13.77, -37.69, 60.0), ("far", 100.0, 0.0, 60.0))))
    assert len(reading.events) == 10
    assert reading.events.source_id == "NGC 300 ULX-1"
    assert reading.events.background is None
    balances(reading, 10)
    assert read(file, ReadOptions(sources=named(("far", 100.0, 0.0, 60.0)))).events.source_id == "NGC_300_ULX1"


# Frames --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_pile_up_is_flagged_for_a_bright_point_source_and_never_for_a_field(tmp_path: Path, rate: float) -> None:
    frame = 3.2
    frames = int((STOP - START) / frame)
    generator = np.random.default_rng(14)
    counts = generator.poisson(rate, frames)
    time = START + frame * (np.repeat(np.arange(frames), counts) + 0.5)
    pi = generator.integers(10, 900, len(time))  # counts of all energies are of the frame
    at = generator.normal(CENTRE, 1.0, (2, len(time)))
    around = simulate(15, background=3000)
    order = np.argsort(np.concatenate([time, around.time]), kind="stable")
    field = Simulated(
        *(
            np.concatenate([own, other])[order]
            for own, other in ((time, around.time), (at[0], around.x), (at[1], around.y), (pi, around.pi))
        )
    )
    file = field.write(tmp_path / "a.fits", TIMEDEL=frame)
    source, empty = read(file, ReadOptions(sources=table_of((0, 0, 10), (150, 0, 10)))).detections
    (whole,) = read(file).detections
    assert source.frame_time == pytest.approx(frame)
    # The mean over the frames, each counted by itself.
    inside = field.within(0, 0, 10) & (field.time >= START) & (field.time <= STOP)
    by_frame = np.bincount(((field.time[inside] - START) / frame).astype(int), minlength=frames)
    assert source.counts_per_frame == pytest.approx(np.mean(by_frame), rel=1e-3)
    assert source.counts_per_frame == pytest.approx(rate, rel=0.1)
    assert ("pile_up" in source.flags) == (rate > 0.1)
    assert "pile_up" not in empty.flags
    assert whole.counts_per_frame > source.counts_per_frame
    assert "pile_up" not in whole.flags


# HRC -----------------------------------------------------------------------------------------------------------------


def test_hrc_is_taken_with_one_band_and_flagged_and_refused_with_three(tmp_path: Path) -> None:
    field = simulate(16, (0, 0, 200))
    file = field.write(tmp_path / "hrc.fits", INSTRUME="HRC", DETNAM="HRC-I")
    sources = table_of((0, 0, 8))
    for wanted in (ReadOptions(), ReadOptions(bands={"chandra": Bands((0.5, 1, 2, 7))}), ReadOptions(sources=sources)):
        with pytest.raises(RefusedInput, match="chandra/hrc") as refused:
            read(file, wanted)
        assert refused.value.reason == "no_energies"
    reading = read(file, ReadOptions(bands={"chandra/hrc": Bands((0.5, 8.0))}, sources=sources))
    balances(reading, len(field.time))
    events = reading.events
    in_time = (field.time >= START) & (field.time <= STOP)
    assert len(events) == np.count_nonzero(in_time & field.within(0, 0, 8))
    assert events.energy == pytest.approx(2.0)
    assert set(events.band) == {0}
    assert "no_energies" in events.flags
    assert np.isnan(events.frame_time)
    assert np.isnan(events.counts_per_frame)
