"""Source tables in every format that they come in, and finding a field's sources in them."""

import gzip
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.errors import ConfigError
from lexray.events.extraction.source_table import SourceTable, read_sources
from lexray.literature.sources import TargetSource, sources_from_table
from lexray.tables import delta

CSV = """# from the survey
Source_ID,RA,Dec,Radius,REGION,arf
0012,10.5,-3.25,2.5,,a.arf
b,359.75,89.5,,"fk5; circle(359.75,89.5,4"")",
"""


def rows(ra_unit: u.UnitBase = u.rad) -> Table:
    """The same two sources in minutes of arc, right ascension in hours or radians."""
    return Table(
        {
            "SOURCE_ID": ["0012", "b"],
            "ra": ([10.5, 359.75] * u.deg).to(ra_unit),
            "DEC": [-3.25 * 60, 89.5 * 60] * u.arcmin,
            "radius": [2.5 / 60, np.nan] * u.arcmin,
            "Region": ["", 'fk5; circle(359.75,89.5,4")'],
            "arf": ["a.arf", ""],
        }
    )


def table_bytes(table: Table, kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # not every writer takes an open file
        table.write(Path(folder) / "table", format=kind)
        return (Path(folder) / "table").read_bytes()


def parquet(unit: str) -> bytes:
    fields = [
        pa.field("source_id", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("radius", pa.float32(), metadata={"unit": unit}),
        pa.field("region", pa.string()),
        pa.field("arf", pa.string()),
    ]
    size = {"arcsec": 2.5, "deg": 2.5 / 3600}[unit]
    columns = [["0012", "b"], [10.5, 359.75], [-3.25, 89.5], [size, None]]
    columns += [[None, 'fk5; circle(359.75,89.5,4")'], ["a.arf", None]]
    out = BytesIO()
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), out)
    return out.getvalue()


FORMATS = {
    "csv": lambda: CSV.encode(),
    "csv with a byte-order mark": lambda: CSV.partition("\n")[2].encode("utf-8-sig"),
    "csv.gz": lambda: gzip.compress(CSV.encode()),
    "ecsv": lambda: table_bytes(rows(u.hourangle), "ascii.ecsv"),
    "fits": lambda: table_bytes(rows(), "fits"),
    "fits.gz": lambda: gzip.compress(table_bytes(rows(), "fits")),
    "votable": lambda: table_bytes(rows(u.hourangle), "votable"),
    "parquet": lambda: parquet("arcsec"),
    "parquet in degrees": lambda: parquet("deg"),
    "parquet by astropy": lambda: table_bytes(rows(), "parquet"),
}


Parse = Callable[[bytes, str], SourceTable]


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Reads a source table of some bytes, under a name."""
    monkeypatch.chdir(tmp_path)

    def read(content: bytes, name: str) -> SourceTable:
        Path(name).write_bytes(content)
        return read_sources(name)

    return read


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_every_format_says_the_same(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sources.dat"  # formats are told by content
    path.write_bytes(FORMATS[kind]())
    sources = read_sources(str(path))
    assert sources.source_id == ["0012", "b"]
    np.testing.assert_allclose(sources.ra, [10.5, 359.75], rtol=1e-12)
    np.testing.assert_allclose(sources.dec, [-3.25, 89.5], rtol=1e-12)
    np.testing.assert_allclose(sources.radius, [2.5, np.nan], rtol=1e-6)
    assert sources.region == [None, 'fk5; circle(359.75,89.5,4")']
    assert sources.arf == [str(path.parent / "a.arf"), None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ra,dec,radius\n1,2,3\n", "no column 'source_id'; it has ra, dec, radius"),
        ("source_id,ra,radius\na,2,3\n", "no column 'dec'"),
        ("source_id,ra,dec\na,2,3\n", "neither a column 'radius' nor 'region'"),
        ("source_id,ra,dec,radius\nNGC 1,1,2,3\nb,1,2,3\nngc_1,1,2,3\n", "row 3: source_id 'ngc_1' is also row 1's"),
        ("source_id,ra,dec,radius\na,1,2,3\n,1,2,3\n", "row 2: source_id is empty"),
        ("source_id,ra,dec,radius\na,1,2,3\nb,,2,3\n", "row 2: ra nan is no position"),
        ("source_id,ra,dec,radius\na,1,90.5,3\n", "row 1: dec 90.5 is no position"),
        ("source_id,ra,dec,radius\na,1,-inf,3\n", "row 1: dec -inf is no position"),
        ("source_id,ra,dec,radius\na,1,2,0\n", "row 1: radius 0 arcsec is no radius"),
        ("source_id,ra,dec,radius\na,1,2,-3\n", "row 1: radius -3 arcsec is no radius"),
        ("source_id,ra,dec,radius,region\na,1,2,,\n", "row 1: radius nan arcsec is no radius"),
        ("source_id,ra,dec,radius\na,12:00:00,2,3\n", "ra must be numbers, in deg or with a unit"),
        ("source_id,ra,dec,region\na,1,2,pie(1)\n", "row 1: region 'pie' is none of the shapes"),
        ("", "it is empty"),
        ("\0\1\2", "must be CSV, ECSV, FITS, VOTable or Parquet"),
    ],
)
def test_what_cannot_be_used_is_named(parse: Parse, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        parse(text.encode(), "survey.csv")
    assert says in str(wrong.value)
    assert "survey.csv" in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_hours_of_right_ascension_are_no_time(parse: Parse) -> None:
    table = rows()
    table["ra"] = [0.7, 1.0] * u.hour
    np.testing.assert_allclose(parse(table_bytes(table, "fits"), "s.fits").ra, [10.5, 15.0])


def test_a_unit_that_is_no_angle(parse: Parse) -> None:
    table = rows()
    table["radius"].unit = u.keV
    with pytest.raises(ConfigError, match="radius is in keV"):
        parse(table_bytes(table, "fits"), "s.fits")


@pytest.mark.parametrize("kind", ["fits", "votable", "parquet by astropy", "ecsv"])
@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_half_a_file_is_no_table(parse: Parse, kind: str) -> None:
    content = FORMATS[kind]()
    with pytest.raises(ConfigError, match=r"s\.x"):
        parse(content[: len(content) // 4], "s.x")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_sources(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match=r"source table ftp://host/s\.csv: Unrecognized filesystem"):
        read_sources("ftp://host/s.csv")


def test_a_table_without_sources(parse: Parse) -> None:
    sources = parse(b"source_id,ra,dec,radius\n", "s.csv")
    assert len(sources) == 0
    assert len(sources.near(10.0, 20.0, 180.0)) == 0


def table_at(ra: np.ndarray, dec: np.ndarray) -> SourceTable:
    none: list[str | None] = [None] * len(ra)
    return SourceTable([str(i) for i in range(len(ra))], ra, dec, np.ones(len(ra)), none, none)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([0.0, 0.001, 180.0, 359.999]) | st.floats(0, 360),
    st.sampled_from([-90.0, 89.99, 90.0]) | st.floats(-90, 90),
    st.sampled_from([0.0, 0.3, 5.0, 90.0, 180.0]) | st.floats(0, 180),
)
def test_near_is_what_separations_say(ra: float, dec: float, degrees: float) -> None:
    generator = np.random.default_rng(5)
    # Half over the whole sky, half around the circle that is asked for.
    longitude = np.concatenate([generator.uniform(0, 360, 300), ra + generator.normal(0, 1, 300)]) % 360
    latitude = np.concatenate([np.degrees(np.arcsin(generator.uniform(-1, 1, 300))), dec + generator.normal(0, 1, 300)])
    latitude = np.clip(latitude, -90, 90)
    apart = SkyCoord(longitude, latitude, unit="deg").separation(SkyCoord(ra, dec, unit="deg")).deg
    found = table_at(longitude, latitude).near(ra, dec, degrees)
    assert np.all(np.diff(found) > 0)
    clear = np.abs(apart - degrees) > 1e-6  # on the circle itself rounding decides
    expected = np.flatnonzero(clear & (apart < degrees))
    np.testing.assert_array_equal(found[clear[found]], expected)


def test_a_gzip_stream_that_grows_without_end_is_refused(parse: Parse) -> None:
    """A megabyte of zeros over and over, which would unpack to 600 times its size."""
    bomb = gzip.compress(b"\0" * (1 << 20)) * 300
    says = r"source table s\.csv\.gz cannot be read \(too_large: the gzip stream grows"
    with pytest.raises(ConfigError, match=says):
        parse(bomb, "s.csv.gz")
    with pytest.raises(ConfigError, match=says):
        sources_from_table("s.csv.gz", {})


# The same reader for the sources whose papers are collected -----------------------------------------------------------


def test_papers_are_collected_for_the_sources_of_any_format(tmp_path: Path) -> None:
    for kind in ("fits.gz", "votable", "parquet by astropy", "csv"):
        (tmp_path / "sources.dat").write_bytes(FORMATS[kind]())
        first, second = sources_from_table(str(tmp_path / "sources.dat"), {"position_error": "radius"})
        assert (first.source_id, first.error) == ("0012", pytest.approx(2.5))
        assert (second.source_id, second.error) == ("b", None)
        assert (second.ra, second.dec) == pytest.approx((359.75, 89.5))


def test_a_table_of_ours_has_positions_their_errors_and_columns_of_no_use(tmp_path: Path) -> None:
    fields = {"source_id": pa.string(), "ra": pa.float64(), "dec": pa.float64(), "err_ellipse_r0": pa.float64()}
    schema = pa.schema(
        [*map(pa.field, fields, fields.values()), pa.field("flux", pa.float64(), metadata={"unit": "?"})]
    )
    rows = pa.table([["a", "A_", "c"], [10.0, 11.0, None], [-1.0, 2.0, 3.0], [0.5, 0.7, 0.9], [1.0, 2.0, 3.0]], schema)
    delta.write(str(tmp_path / "labels"), "labels", schema, rows)
    assert sources_from_table(str(tmp_path / "labels"), {}, 2.0) == [
        TargetSource("a", 10.0, -1.0, 0.5),
        TargetSource("c"),
    ]


@pytest.mark.parametrize("ra", [370, -181])
def test_what_is_no_right_ascension_is_refused_where_it_stands(tmp_path: Path, ra: float) -> None:
    (tmp_path / "s.csv").write_text(f"source_id,ra,dec\na,1,1\nb,{ra},1\n")
    with pytest.raises(ConfigError, match=rf"s\.csv, row 2: ra {ra} is no position: between 0 and 360 degrees"):
        sources_from_table(str(tmp_path / "s.csv"), {}, 2.0)


def test_a_row_without_an_error_has_the_configurations(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("source_id,ra,dec,position_error,mjd\na,-10,-1,,58000\n")
    assert sources_from_table(str(tmp_path / "s.csv"), {}, 2.0) == [TargetSource("a", 350.0, -1.0, 2.0, 58000.0)]


@pytest.mark.parametrize(
    ("text", "called", "says"),
    [
        ("source_id,ra,dec\n_,1,2\n", {}, "row 1: source_id is empty"),
        ("source_id,ra,dec\na,1,91\n", {}, "row 1: dec 91 is no position"),
        ("source_id,ra,dec\na,1,2\nb,x,2\n", {}, "row 2: ra must be numbers, in deg or with a unit, not 'x'"),
        ("source_id,ra,dec,position_error\na,1,2,0\n", {}, "row 1: position_error 0 arcsec is no radius"),
        ("source_id,ra\na,1\n", {}, "no column 'dec'; it has source_id, ra (see source_columns)"),
        ("source_id,ra,dec\na,1,2\n", {"mjd": "date"}, "no column 'date'"),
        ("source_id,ra,dec\na,1,2\n", {"when": "date"}, "source_columns: 'when' is none of source_id, ra"),
    ],
)
def test_what_a_table_of_papers_sources_lacks_is_named(
    tmp_path: Path, text: str, called: dict[str, str], says: str
) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ConfigError) as wrong:
        sources_from_table(str(tmp_path / "s.csv"), called)
    assert says in str(wrong.value)
