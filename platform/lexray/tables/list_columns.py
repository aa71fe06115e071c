"""Columns of Arrow tables ↔ NumPy arrays, lists above all, without a Python loop over their values."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lexray.errors import LexrayError


def floats(column: "pa.ChunkedArray[Any]") -> NDArray[np.float64]:
    """f8[N] from a column of numbers, NaN where null."""
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy())


def list_array(rows: Iterable[NDArray[Any] | None], kind: type[np.floating[Any]]) -> pa.Array:
    """A list column of the arrays of some rows; None gives null."""
    arrays = list(rows)
    offsets = np.concatenate([[0], np.cumsum([0 if array is None else len(array) for array in arrays])])
    values = np.concatenate([np.zeros(0, kind), *(array for array in arrays if array is not None)], dtype=kind)
    absent = pa.array([array is None for array in arrays]) if any(array is None for array in arrays) else None
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values), mask=absent)


def flatten_lists(column: "pa.ChunkedArray[Any]") -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """The values of a list column behind one another, and where each row's begin.

    Returns
    -------
    values : f[P]
        NaN where null.
    offsets : i8[N + 1]
        Row i has ``values[offsets[i]:offsets[i + 1]]``; a null row has none.
    """
    values: NDArray[np.floating[Any]] = pc.list_flatten(column).fill_null(np.nan).to_numpy()
    return values, np.concatenate([[0], np.cumsum(list_lengths(column))]).astype(np.int64)


def list_lengths(column: "pa.ChunkedArray[Any]") -> NDArray[np.int64]:
    """How long each row's list is, i8[N]; 0 where it is null. The lists' values are not touched."""
    return np.array(pc.list_value_length(column).fill_null(0).to_numpy(), dtype=np.int64)


def stack_lists(column: "pa.ChunkedArray[Any]") -> NDArray[np.float32]:
    """f4[N, D] from a list column of equally long lists, of fixed size or not; NaN for rows that are null."""
    valid = np.asarray(column.is_valid().to_numpy())
    out = np.full((len(column), list_lengths(column).max(initial=0)), np.nan, dtype=np.float32)
    out[valid] = pc.list_flatten(column).to_numpy().reshape(int(valid.sum()), out.shape[1])
    return out


def vectors(table: str, rows: pa.Table, name: str) -> NDArray[np.float32]:
    """As `stack_lists`, of a table's column.

    Raises
    ------
    LexrayError
        If the lists differ in length.
    """
    lengths = pc.list_value_length(rows[name].drop_null()).unique().to_pylist()
    if len(lengths) > 1:
        raise LexrayError(f"{table}: column '{name}' holds vectors of {sorted(lengths)} numbers; one is needed")
    return stack_lists(rows[name])


def finite_rows(x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows of x[N, D] hold finite numbers only."""
    return np.asarray(np.isfinite(x).all(axis=1))
