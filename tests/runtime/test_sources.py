"""Names, parts and splits: stable for ever, since tables on disk and published figures hang on them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexray.sources import fold_name, name_from_position, part_of
from lexray.training.splits import SPLIT_SHARES, SPLITS, split, split_keys

ARCSEC = 1 / 3600


def test_golden_parts_and_splits() -> None:
    names = ["M82", "NGC 300 ULX1", "PSR J0218+4232", "Fake X-1"]
    assert [part_of(name, 16) for name in names] == [1, 11, 3, 1]
    assert [part_of(name, 256) for name in names] == [145, 203, 243, 225]
    assert [split(name, seed) for name in names[:2] for seed in range(6)] == [
        "train",
        "test",
        "test",
        "train",
        "test",
        "train",
        "train",
        "train",
        "train",
        "val",
        "test",
        "train",
    ]


@given(st.text("abcXYZ_ 019+-", min_size=1, max_size=12), st.integers(1, 300), st.integers(0, 5))
def test_the_same_name_in_another_writing_is_the_same_source(name: str, n_parts: int, seed: int) -> None:
    other = name.upper().replace(" ", "_") + " "
    assert fold_name(name) == fold_name(other)
    assert part_of(name, n_parts) == part_of(other, n_parts) < n_parts
    assert split(name, seed) == split(other, seed)


def test_shares_of_the_split() -> None:
    found = [split(f"source {i}") for i in range(20_000)]
    for name, share in zip(SPLITS, SPLIT_SHARES, strict=True):
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.015)
    other = [split(f"source {i}", 1) for i in range(20_000)]
    assert np.mean([a == b for a, b in zip(found, other, strict=True)]) < 0.6  # 44.5 % by chance


def test_sources_within_an_arcsecond_fall_together() -> None:
    names = ["a", "b", "c", "far", "nowhere", "A"]
    ra = np.array([10.0, 10.0, 10.0, 10.0, np.nan, 50.0])
    # a–b and b–c are 0.9″ apart, a–c 1.8″: what hangs together falls together. 'A' is 'a' by name.
    dec = np.array([-30.0, -30.0 + 0.9 * ARCSEC, -30.0 + 1.8 * ARCSEC, -30.0 + 10 * ARCSEC, np.nan, 0.0])

    keys = split_keys(names, ra, dec)

    assert keys == ["a", "a", "a", "far", "nowhere", "a"]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.booleans()), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_keys_do_not_depend_on_the_rows_order_and_never_part_neighbours(
    rows: list[tuple[int, int, bool]], random: "np.random.Generator"
) -> None:
    names = [f"s{name}" for name, _, _ in rows]
    ra = np.full(len(rows), 120.0)
    dec = np.array([20.0 + place * 0.6 * ARCSEC if known else np.nan for _, place, known in rows])
    keys = split_keys(names, ra, dec)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[arg-type]

    again = split_keys([names[i] for i in order], ra[order], dec[order])

    assert again == [keys[i] for i in order]
    for i in range(len(rows)):
        for j in range(i):
            near = abs(dec[i] - dec[j]) < 0.99 * ARCSEC
            if near or names[i] == names[j]:
                assert keys[i] == keys[j]


def test_a_name_from_a_position_is_truncated_as_the_iau_asks() -> None:
    # 13.770208° = 00h 55m 04.8499s
    assert name_from_position(13.770208, -37.695417) == "J005504.8-374143"
    assert name_from_position(359.9999999, 0.0) == "J235959.9+000000"
    assert name_from_position(10.0, -0.25) == "J004000.0-001500"
    assert name_from_position(0.0, 89.9999) == "J000000.0+895959"


@given(st.floats(0, 360, exclude_max=True), st.floats(-90, 90))
def test_a_position_lies_at_or_beyond_its_name(ra: float, dec: float) -> None:
    name = name_from_position(ra, dec)
    hours = int(name[1:3]) + int(name[3:5]) / 60 + float(name[5:9]) / 3600
    degrees = int(name[10:12]) + int(name[12:14]) / 60 + int(name[14:16]) / 3600
    assert -1e-6 <= ra / 15 * 3600 % (86_400 - 1e-6) - hours * 3600 < 0.1 + 1e-6  # the last µs of a day is the next's
    assert -1e-5 <= abs(dec) * 3600 - degrees * 3600 < 1 + 1e-5
    assert (name[9] == "-") == (dec < 0)
