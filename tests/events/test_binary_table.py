"""Binary tables from a file's bytes, against what astropy.io.fits and cfitsio (fitsio) read of the same bytes."""

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from event_files import with_keyword
from lexray.errors import RefusedInput
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import scan

#: NumPy type of each TFORM code that holds numbers.
TYPES = {"B": "u1", "I": "i2", "J": "i4", "K": "i8", "E": "f4", "D": "f8"}


def content_of(*columns: fits.Column, **said: Any) -> bytes:
    """A file with one table, by astropy."""
    table = fits.BinTableHDU.from_columns(list(columns), name="EVENTS")
    table.header.update(said)
    written = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(written)
    return written.getvalue()


def table_of(content: bytes) -> BinaryTable:
    return BinaryTable(scan(content)[1], content)


# Values --------------------------------------------------------------------------------------------------------------


@st.composite
def _columns(draw: st.DrawFn) -> list[fits.Column]:
    """Columns of every numeric format, with scales and nulls, between bits, texts and vectors that nobody asks for."""
    n = draw(st.integers(1, 20))
    columns = []
    for i in range(draw(st.integers(1, 8))):
        code = draw(st.sampled_from([*TYPES, "gap"]))
        if code == "gap":
            form = draw(st.sampled_from(["3A", "7X", "2D", "1L", "0J"]))
            columns.append(fits.Column(f"gap{i}", form))
            continue
        values = draw(hnp.arrays(TYPES[code], n, elements=hnp.from_dtype(np.dtype(TYPES[code]), allow_nan=True)))
        column = fits.Column(f"c{i}_{code}", f"1{code}", array=values)
        if code in "BIJK" and draw(st.booleans()):
            column.null = int(draw(st.sampled_from(list(values))))
        columns.append(column)
    return [*columns, fits.Column("last", "1J", array=np.arange(n))]


@settings(max_examples=100, deadline=None)
@given(_columns())
def test_numbers_are_those_of_astropy_and_cfitsio(columns: list[fits.Column]) -> None:
    content = content_of(*columns)
    table = table_of(content)
    by_astropy = fits.open(io.BytesIO(content))[1].data
    assert table.rows == len(by_astropy)
    assert table.columns == [column.name for column in columns]
    for column in columns:
        if column.name.startswith("gap"):
            continue
        expected = np.asarray(by_astropy[column.name])
        as_floats = expected.astype(np.float64)
        if column.null is not None:
            as_floats[expected == column.null] = np.nan
        np.testing.assert_array_equal(table.numbers(column.name.upper()), as_floats)
        if column.format[-1] in "BIJK":
            np.testing.assert_array_equal(table.integers(column.name), expected.astype(np.int64))
        assert (table.column(column.name).null) == column.null


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["i1", "u2", "u4", "u8"]))
def test_unsigned_numbers_and_signed_bytes(data: st.DataObject, kind: str) -> None:
    values = data.draw(hnp.arrays(kind, st.integers(1, 20)))
    file = fitsio.FITS("mem://", "rw")
    file.write(None)
    file.write_table([np.zeros(len(values), "i2"), values], names=["first", "value"])
    content = bytes(file.read_raw())
    np.testing.assert_array_equal(file[1]["value"][:], values)
    file.close()
    table = table_of(content)
    np.testing.assert_array_equal(table.numbers("value"), values.astype(np.float64))
    assert table.bits("value").tolist() == [_bits_of(int(v), 8 * values.itemsize) for v in values]
    if np.all(values.astype(object) < 2**63):
        np.testing.assert_array_equal(table.integers("value"), values.astype(np.int64))
    else:
        with pytest.raises(RefusedInput, match="64 bits"):
            table.integers("value")


def _bits_of(value: int, n: int) -> list[bool]:
    """Two's complement, the highest bit first."""
    return [bool(value >> i & 1) for i in reversed(range(n))]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(TYPES)),
    st.floats(-1e6, 1e6).filter(lambda scale: abs(scale) > 1e-6),
    st.floats(-1e9, 1e9),
    st.lists(st.integers(-100, 100), min_size=1, max_size=10),
)
def test_a_value_is_zero_plus_scale_times_what_is_stored(code: str, scale: float, zero: float, said: list[int]) -> None:
    stored = np.array(said).astype(TYPES[code])
    content = content_of(fits.Column("v", f"1{code}", array=stored), TSCAL1=scale, TZERO1=zero)
    found = table_of(content).numbers("v")
    np.testing.assert_allclose(found, [zero + scale * float(s) for s in stored], rtol=1e-12, atol=1e-300)


def test_whole_numbers_with_a_whole_zero_point_stay_whole() -> None:
    table = table_of(content_of(fits.Column("v", "1I", array=np.array([-3, 4], "i2")), TZERO1=1000.0))
    assert table.integers("v").tolist() == [997, 1004]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 12), st.booleans(), st.integers(0, 2**32 - 1))
def test_bits_of_any_length(n_bits: int, n: int, between: bool, seed: int) -> None:
    bits = np.random.default_rng(seed).random((n, n_bits)) < 0.5
    columns = [fits.Column("status", f"{n_bits}X", array=bits), fits.Column("after", "1I", array=np.arange(n))]
    content = content_of(*([fits.Column("before", "1B", array=np.arange(n))] if between else []), *columns)
    table = table_of(content)
    np.testing.assert_array_equal(table.bits("STATUS"), bits)
    np.testing.assert_array_equal(fits.open(io.BytesIO(content))[1].data["status"], bits)
    assert table.integers("after").tolist() == list(range(n))


@given(st.sampled_from("BIJK"), st.data())
def test_bits_of_whole_numbers_run_from_the_highest(code: str, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(TYPES[code], st.integers(1, 8)))
    table = table_of(content_of(fits.Column("status", f"1{code}", array=values)))
    assert table.bits("status").tolist() == [_bits_of(int(v), 8 * values.itemsize) for v in values]


def test_a_row_may_be_longer_than_its_columns() -> None:
    content = content_of(fits.Column("a", "1J", array=[1, 2, 3]), fits.Column("b", "1J", array=[7, 8, 9]))
    shortened = content.replace(b"TFIELDS =                    2", b"TFIELDS =                    1")
    assert shortened != content
    table = table_of(shortened)
    assert table.numbers("a").tolist() == [1, 2, 3]
    assert "b" not in table


def test_a_table_of_no_rows_at_the_very_end_of_a_file() -> None:
    content = content_of(fits.Column("start", "1D", array=[]), fits.Column("stop", "1D", array=[]))
    assert scan(content)[1].start == len(content)  # not a byte of data, so that no column begins inside the file
    assert len(table_of(content).numbers("stop")) == 0


def test_of_two_columns_with_one_name_the_first_counts() -> None:
    content = content_of(fits.Column("pi", "1J", array=[1]), fits.Column("qi", "1J", array=[2]))
    table = table_of(content.replace(b"'qi", b"'PI"))
    assert table.numbers("pi").tolist() == [1]
    assert table.column("Pi").number == 1


def test_a_column_says_what_its_header_says() -> None:
    content = content_of(fits.Column("x", "1J", array=[1]), fits.Column("Energy", "1E", unit="eV", array=[1.0]))
    column = table_of(content).column("ENERGY")
    assert (column.number, column.name, column.unit, column.code, column.offset) == (2, "Energy", "eV", "E", 4)


def test_a_null_that_is_no_number_is_only_of_interest_to_whole_numbers() -> None:
    content = content_of(fits.Column("time", "1D", array=[1.0, np.nan]), TNULL1="NaN")
    np.testing.assert_array_equal(table_of(content).numbers("time"), [1.0, np.nan])


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_keyword("NAXIS1", 11), "bad_structure"),
        (with_keyword("NAXIS1", -12), "bad_structure"),
        (with_keyword("NAXIS1", 10**12), "truncated"),
        (with_keyword("NAXIS1", 0), "bad_structure"),
        (with_keyword("NAXIS2", -10), "bad_structure"),
        (with_keyword("NAXIS2", 10**12), "truncated"),
        (with_keyword("NAXIS2", "ten"), "bad_structure"),
        (with_keyword("NAXIS", -2), "bad_structure"),
        (with_keyword("NAXIS", 10**9), "bad_structure"),
        (with_keyword("TFIELDS", 10**9), "bad_structure"),
        (with_keyword("TFIELDS", -1), "bad_structure"),
        (with_keyword("TFIELDS", 3), "bad_structure"),
        (with_keyword("TFORM1", "'1Z      '"), "bad_structure"),
        (with_keyword("TFORM1", "'-1D     '"), "bad_structure"),
        (with_keyword("TFORM1", "''"), "bad_structure"),
        (with_keyword("TFORM1", "'999999999D'"), "bad_structure"),
        (with_keyword("PCOUNT", -(10**6)), "bad_structure"),
        (with_keyword("PCOUNT", 10**12), "truncated"),
        (with_keyword("GCOUNT", 10**12), "truncated"),
        (with_keyword("GCOUNT", 0), "bad_structure"),
        (with_keyword("BITPIX", "eight"), "bad_structure"),
    ],
)
def test_a_header_that_lies_is_refused(change: Callable[[bytes], bytes], reason: str) -> None:
    columns = fits.Column("time", "1D", array=np.arange(10.0)), fits.Column("pi", "1J", array=np.arange(10))
    with pytest.raises(RefusedInput) as refused:
        table_of(change(content_of(*columns)))
    assert refused.value.reason == reason
    assert refused.value.detail


@pytest.mark.parametrize(
    ("form", "array"),
    [
        ("2D", np.ones((2, 2))),
        ("0D", None),
        ("5A", np.array(["noon", "dusk"])),
        ("PJ()", np.array([[1], [1, 2]], dtype=object)),
        ("1C", np.ones(2, dtype=complex)),
        ("1L", np.array([True, False])),
        ("4X", np.ones((2, 4), dtype=bool)),
    ],
)
def test_what_is_not_one_number_a_row_is_a_bad_column(form: str, array: Any) -> None:
    table = table_of(content_of(fits.Column("v", form, array=array), fits.Column("n", "1J", array=[1, 2])))
    for read in (table.numbers, table.integers):
        with pytest.raises(RefusedInput, match="'v'") as refused:
            read("v")
        assert refused.value.reason == "bad_column"
    assert table.numbers("n").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("form", "said"), [("1D", {}), ("1J", {"TSCAL1": 0.5}), ("1J", {"TZERO1": 0.5}), ("1J", {"TZERO1": 1e300})]
)
def test_fractions_are_no_whole_numbers(form: str, said: dict[str, Any]) -> None:
    with pytest.raises(RefusedInput) as refused:
        table_of(content_of(fits.Column("v", form, array=[1, 2]), **said)).integers("v")
    assert refused.value.reason == "bad_column"


def test_floats_hold_no_bits() -> None:
    with pytest.raises(RefusedInput) as refused:
        table_of(content_of(fits.Column("status", "1E", array=[1.0]))).bits("status")
    assert refused.value.reason == "bad_column"


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(RefusedInput, match="'time'; it has pi, x") as refused:
        table_of(content_of(fits.Column("pi", "1J", array=[1]), fits.Column("x", "1E", array=[1]))).numbers("time")
    assert refused.value.reason == "missing_column"


@settings(max_examples=200, deadline=None)
@given(st.integers(2880, 2880 * 3 - 1), st.binary(min_size=1, max_size=30))
def test_any_bytes_are_read_or_refused(place: int, octets: bytes) -> None:
    columns = [fits.Column("time", "1D", array=np.arange(10.0)), fits.Column("status", "9X", array=np.ones((10, 9)))]
    content = bytearray(content_of(*columns, fits.Column("pi", "1J", array=np.arange(10), null=3)))
    content[place : place + len(octets)] = octets
    try:
        hdus = scan(bytes(content))
        tables = [BinaryTable(hdu, content) for hdu in hdus if hdu.is_table]
    except RefusedInput:
        return
    for table in tables:
        for name in table.columns:
            for read in (table.numbers, table.integers, table.bits):
                with suppress(RefusedInput):
                    assert len(read(name)) == table.rows
