"""Tables that fpack compressed, read as the plain ones that they were made of; damaged ones refused."""

import io
import re
import shutil
import subprocess
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from event_files import HEADERS, with_keyword
from lexray.errors import RefusedInput
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.compressed_table import CompressedTable, open_table
from lexray.events.fits.headers import scan
from lexray.events.reader import read

needs_fpack = pytest.mark.skipif(
    shutil.which("fpack") is None, reason="needs cfitsio's fpack (Debian and Ubuntu: apt install libcfitsio-bin)"
)


def fpack(content: bytes, *options: str) -> bytes:
    """The file with its tables compressed, by cfitsio's own program."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "a.fits"
        plain.write_bytes(content)
        subprocess.run(["fpack", "-table", *options, str(plain)], check=True, capture_output=True, timeout=60)
        return Path(f"{plain}.fz").read_bytes()


def file_of(*columns: fits.Column, gti: Any = ((0.0,), (1e5,)), **said: Any) -> bytes:
    """An event file of these columns, with a good-time extension."""
    events = fits.BinTableHDU.from_columns(list(columns), name="EVENTS")
    events.header.update({**HEADERS["chandra"], **said})
    bounds = [fits.Column("START", "1D", array=gti[0]), fits.Column("STOP", "1D", array=gti[1])]
    written = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), events, fits.BinTableHDU.from_columns(bounds, name="GTI")]).writeto(written)
    return written.getvalue()


def events_of(content: bytes) -> BinaryTable:
    return open_table(next(hdu for hdu in scan(content) if hdu.name == "EVENTS"), content)


def same_columns(packed: bytes, plain: bytes) -> None:
    """All columns of a packed table are those of the plain one; bit columns by their bits."""
    found, expected = events_of(packed), events_of(plain)
    assert isinstance(found, CompressedTable)
    assert not isinstance(expected, CompressedTable)
    assert (found.rows, found.columns) == (expected.rows, expected.columns)
    for name in expected.columns:
        column = expected.column(name)
        if column.code in "XBIJK":
            np.testing.assert_array_equal(found.bits(name), expected.bits(name), err_msg=name)
        if column.code in "BIJKED" and column.repeat == 1:
            np.testing.assert_array_equal(found.numbers(name), expected.numbers(name), err_msg=name)
        if column.code in "BIJK" and column.repeat == 1 and column.scale == 1:
            np.testing.assert_array_equal(found.integers(name), expected.integers(name), err_msg=name)


# As the plain file ---------------------------------------------------------------------------------------------------


@needs_fpack
@pytest.mark.parametrize("name", ["chandra_test.fits", "ngc300nicer_bary.evt", "monol_testA.evt"])
def test_real_files_read_the_same(real_events: Path, tmp_path: Path, name: str) -> None:
    plain = real_events / name
    packed = tmp_path / f"{name}.fz"
    packed.write_bytes(fpack(plain.read_bytes()))
    same_columns(packed.read_bytes(), plain.read_bytes())
    one, other = read(packed), read(plain)
    assert (one.n_in, one.dropped, one.unsorted) == (other.n_in, other.dropped, other.unsorted)
    np.testing.assert_array_equal(one.events.time, other.events.time)
    np.testing.assert_array_equal(one.events.energy, other.events.energy)
    np.testing.assert_array_equal(one.events.gti.start, other.events.gti.start)
    assert (one.events.exposure, one.events.flags) == (other.events.exposure, other.events.flags)
    assert one.events.detection_id == other.events.detection_id


_KINDS = {"1B": "u1", "1I": "i2", "1J": "i4", "1K": "i8", "1E": "f4", "1D": "f8"}


def _values(generator: np.random.Generator, kind: str, n: int, spread: str) -> NDArray[Any]:
    """Numbers that pack well, badly or not at all."""
    if spread == "same":
        return np.full(n, 7).astype(kind)
    if spread == "sorted":
        return np.cumsum(generator.integers(0, 3, n)).astype(kind)
    return np.frombuffer(generator.bytes(n * np.dtype(kind).itemsize), dtype=kind)


@needs_fpack
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*_KINDS, "bits"]), st.sampled_from(["same", "sorted", "any"])), max_size=6),
    st.integers(800, 1500),  # fpack leaves a table of two blocks as it is
    st.sampled_from([None, 7, 32, 100, 799, 10_000]),
    st.integers(0, 2**32 - 1),
)
def test_random_columns_in_any_number_of_tiles(
    kinds: list[tuple[str, str]], n: int, tile_rows: int | None, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    columns = [fits.Column("time", "1D", array=np.sort(generator.uniform(0, 1e5, n)))]
    for i, (form, spread) in enumerate(kinds):
        if form == "bits":
            columns.append(fits.Column(f"c{i}", "11X", array=generator.random((n, 11)) < 0.5))
        else:
            columns.append(fits.Column(f"c{i}", form, array=_values(generator, _KINDS[form], n, spread)))
    plain = file_of(*columns, **({} if tile_rows is None else {"FZTILELN": tile_rows}))
    packed = fpack(plain)
    if tile_rows is not None:
        assert events_of(packed).header.integer("ZTILELEN") == min(tile_rows, n)
    same_columns(packed, plain)


@needs_fpack
@pytest.mark.parametrize("method", ["GZIP_1", "GZIP_2", "RICE_1"])
@pytest.mark.parametrize("form", ["1I", "1J"])
def test_every_coding_of_whole_numbers(method: str, form: str) -> None:
    values = np.random.default_rng(1).integers(0, 100, 5000).astype(_KINDS[form])
    plain = file_of(fits.Column("v", form, array=values), FZALG1=method, FZTILELN=700)
    packed = fpack(plain)
    assert events_of(packed).header.text("ZCTYP1") == method
    same_columns(packed, plain)


@needs_fpack
def test_scales_nulls_and_unsigned_numbers_stay() -> None:
    values = np.arange(3000)
    plain = file_of(
        fits.Column("scaled", "1I", array=values.astype("i2")),
        fits.Column("pi", "1J", array=values, null=7),
        fits.Column("status", "1J", bzero=2**31, array=(values + 2**31).astype("u4")),
        TSCAL1=0.5,
        TZERO1=3.0,
    )
    packed = fpack(plain)
    same_columns(packed, plain)
    found = events_of(packed)
    np.testing.assert_array_equal(found.numbers("scaled"), 3 + values / 2)
    assert np.flatnonzero(np.isnan(found.numbers("pi"))).tolist() == [7]
    np.testing.assert_array_equal(found.integers("status"), values + 2**31)


@needs_fpack
def test_good_times_may_be_compressed_too() -> None:
    start = np.arange(1000) * 100.0
    plain = file_of(
        fits.Column("time", "1D", array=start + 5),
        fits.Column("pi", "1J", array=np.full(1000, 100)),
        gti=np.stack([start, start + 10]),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.fits.fz"
        file.write_bytes(fpack(plain))
        assert all(hdu.header.text("ZTABLE") == "T" for hdu in scan(file.read_bytes())[1:])
        events = read(file).events
    np.testing.assert_array_equal(events.gti.start, start)
    assert events.gti.ontime == 10 * 1000
    assert len(events) == 1000
    assert events.detection_id == "chandra:10027:acis:M82"


# Damaged -------------------------------------------------------------------------------------------------------------


def _compressed_file() -> bytes:
    generator = np.random.default_rng(3)
    n = 2000
    return file_of(
        fits.Column("time", "1D", array=np.sort(generator.uniform(0, 1e5, n))),
        fits.Column("pi", "1J", array=generator.integers(50, 400, n)),
        fits.Column("status", "32X", array=np.zeros((n, 32), dtype=bool)),
        FZTILELN=500,
    )


def _descriptor(column: int, length: int | None, offset: int | None) -> Callable[[bytes], bytes]:
    """Change where a column's first tile is said to lie."""

    def change(content: bytes) -> bytes:
        (events,) = (hdu for hdu in scan(content) if hdu.name == "EVENTS")
        form = events.header.text(f"TFORM{column}")
        kind, size = (">i8", 16) if "Q" in form else (">i4", 8)
        start = events.start + size * (column - 1)
        said = np.frombuffer(content, kind, 2, start).copy()
        said[0], said[1] = said[0] if length is None else length, said[1] if offset is None else offset
        return content[:start] + said.tobytes() + content[start + size :]

    return change


def _first_tile(column: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Change the bytes of a column's first tile, not their number."""

    def changed(content: bytes) -> bytes:
        (events,) = (hdu for hdu in scan(content) if hdu.name == "EVENTS")
        table = CompressedTable(events, content)
        tile = table._stored_tile(table.column(table.columns[column - 1]), 0)
        stored = bytes(tile)
        at = content.index(stored, events.start)
        assert len(change(stored)) == len(stored)
        return content[:at] + change(stored) + content[at + len(stored) :]

    return changed


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "10^12 rows": ("too_large", with_keyword("ZNAXIS2", 10**12)),
    "rows of 10^12 bytes": ("too_large", with_keyword("ZNAXIS1", 10**12)),
    "a billion rows in one tile": (
        "bad_structure",
        lambda c: with_keyword("ZTILELEN", 10**9)(with_keyword("ZNAXIS2", 5 * 10**8)(c)),
    ),
    "rows less than none": ("bad_structure", with_keyword("ZNAXIS2", -5)),
    "rows of less than no bytes": ("bad_structure", with_keyword("ZNAXIS1", -5)),
    "both less than none": ("bad_structure", lambda c: with_keyword("ZNAXIS1", -16)(with_keyword("ZNAXIS2", -5)(c))),
    "rows too short for the columns": ("bad_structure", with_keyword("ZNAXIS1", 4)),
    "more rows than tiles": ("bad_structure", with_keyword("ZNAXIS2", 2100)),
    "tiles of no rows": ("bad_structure", with_keyword("ZTILELEN", 0)),
    "tiles of other lengths": ("bad_structure", with_keyword("ZTILELEN", 400)),
    "a coding that nobody knows": ("bad_structure", with_keyword("ZCTYP1", "'ZSTD_9'")),
    "Rice for times": ("bad_structure", with_keyword("ZCTYP1", "'RICE_1'")),
    "gzip that is Rice": ("bad_structure", with_keyword("ZCTYP2", "'GZIP_1'")),
    "no format": ("bad_structure", with_keyword("ZFORM1", "'none'")),
    "texts for times": ("bad_column", with_keyword("ZFORM1", "'8A'")),
    "descriptors that are none": ("bad_structure", with_keyword("TFORM1", "'1D'")),
    "heap before the file": ("bad_structure", with_keyword("PCOUNT", 0)),
    "tile before the heap": ("bad_structure", _descriptor(1, None, -8)),
    "tile behind the heap": ("bad_structure", _descriptor(1, None, 2**31 - 1)),
    "tile longer than the heap": ("bad_structure", _descriptor(2, 2**31 - 1, None)),
    "tile of less than no bytes": ("bad_structure", _descriptor(2, -1, None)),
    "empty gzip tile": ("bad_structure", _descriptor(1, 0, None)),
    "empty Rice tile": ("bad_structure", _descriptor(2, 0, None)),
    "half a gzip tile": ("bad_structure", _descriptor(1, 100, None)),
    "garbage for gzip": ("bad_structure", _first_tile(1, lambda tile: b"\xa5" * len(tile))),
    "a wrong bit in gzip": (
        "bad_structure",
        _first_tile(1, lambda tile: tile[:50] + bytes([tile[50] ^ 4]) + tile[51:]),
    ),
    "cut in the heap": ("truncated", lambda c: c[: scan(c)[1].start + scan(c)[1].size - 3000]),
}


@needs_fpack
@pytest.mark.parametrize(("reason", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_refused_before_memory_goes(
    tmp_path: Path, reason: str, damage: Callable[[bytes], bytes]
) -> None:
    file = tmp_path / "a.fits.fz"
    whole = fpack(_compressed_file())
    file.write_bytes(whole)
    assert read(file).n_in == 2000
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    tracemalloc.start()
    with pytest.raises(RefusedInput) as refused:
        read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reason == reason
    assert refused.value.detail
    assert peak < 20e6


@needs_fpack
@pytest.mark.parametrize("garbage", [b"\0", b"\xff", b"\xa5\x17"])
def test_garbage_in_a_rice_tile_gives_numbers_or_a_refusal_and_the_account_balances(
    tmp_path: Path, garbage: bytes
) -> None:
    file = tmp_path / "a.fits.fz"
    file.write_bytes(_first_tile(2, lambda tile: (garbage * len(tile))[: len(tile)])(fpack(_compressed_file())))
    try:
        reading = read(file)
    except RefusedInput as refused:
        assert re.search("'pi'|pi", refused.detail)  # noqa: PT017
        return
    assert reading.n_in == 2000 == sum(map(len, reading.detections)) + sum(reading.dropped.values())


@needs_fpack
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(_PACKED.setdefault("file", fpack(_compressed_file())))
    place = data.draw(st.integers(2880, len(content) - 1))
    content[place : place + 8] = data.draw(st.binary(min_size=1, max_size=8))
    try:
        table = events_of(bytes(content))
        for name in table.columns:
            table.bits(name) if table.column(name).code == "X" else table.numbers(name)
    except (RefusedInput, StopIteration):
        return
    assert table.rows >= 0


_PACKED: dict[str, bytes] = {}
