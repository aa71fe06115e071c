"""Parts that the missions' event screens are made of."""

from collections.abc import Callable, Collection

import numpy as np

from lexray.array_types import Bools
from lexray.events.fits.binary_table import BinaryTable

Keep = Callable[[BinaryTable], Bools]


def one_of(column: str, values: Collection[int]) -> Keep:
    """Events whose grade or pattern is one of these."""

    def keep(table: BinaryTable) -> Bools:
        # For a handful of values many times as fast as np.isin.
        found = table.integers(column)
        return np.asarray(np.logical_or.reduce([found == value for value in values]))

    return keep


def none_set(column: str, mask: int) -> Keep:
    """Events of a 32-bit flag none of whose bits in `mask` is set.

    Flags are written as signed integers, so that one with the highest bit set reads as negative; its lower 32 bits
    stay what they are.
    """

    def keep(table: BinaryTable) -> Bools:
        return np.asarray((table.integers(column) & mask) == 0)

    return keep


def matches(column: str, pattern: str) -> Keep:
    """Events whose bits are as a pattern says, in the missions' own notation.

    Parameters
    ----------
    column : str
        A column of bits, or of whole numbers.
    pattern : str
        '0', '1', or 'x' for either, one for each bit, the highest first; where the column has more bits, the pattern
        is of its lowest.
    """
    which = [i for i, symbol in enumerate(pattern) if symbol != "x"]
    wanted = np.array([pattern[i] == "1" for i in which])

    def keep(table: BinaryTable) -> Bools:
        bits = table.bits(column)
        # A column of fewer bits has none of the higher ones: those of Chandra's oldest files are 4 wide.
        low = bits[:, max(bits.shape[1] - len(pattern), 0) :]
        padded = np.zeros((len(bits), len(pattern)), dtype=bool)
        padded[:, len(pattern) - low.shape[1] :] = low
        return np.asarray(np.all(padded[:, which] == wanted, axis=1))

    return keep
