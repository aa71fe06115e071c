"""Rice's coding of whole numbers (FITS standard 4.0, section 10.4.1), by astropy's private decoder.

The only use of a private interface of astropy, as it stands in 8.0.2: astropy's public names decode Rice for images
only, whose headers a compressed table does not have. What would replace it: a public codec of astropy, or
`rcomp_decode` of the package imagecodecs, which nothing else here would need.
"""

import numpy as np

#: Values of a block, as fpack writes them.
_BLOCK = 32
#: Bits that a block of equal values takes, the least of all blocks, by the bytes of a value (cfitsio, ricecomp.c).
_LEAST_BITS = {1: 3, 2: 4, 4: 5}


def unpack_rice(stored: memoryview, n: int, width: int) -> bytes:
    """Decode a tile of a column.

    Parameters
    ----------
    stored : memoryview
        Bytes as they lie in the file.
    n, width : int
        Values that they hold, and bytes of each.

    Returns
    -------
    bytes
        The values behind one another, big-endian.

    Raises
    ------
    ValueError
        If they cannot hold so many values, or are no Rice coding.
    """
    if width not in _LEAST_BITS:
        raise ValueError(f"Rice's coding is for whole numbers of up to 4 bytes, not of {width}")
    # Before anything is allocated for them. The first value stands uncoded before the blocks.
    if 8 * len(stored) < 8 * width + -(-n // _BLOCK) * _LEAST_BITS[width]:
        raise ValueError(f"{len(stored)} bytes cannot hold {n} values")
    # Costly to import, and rarely needed.
    from astropy.io.fits.hdu.compressed._compression import CfitsioException, decompress_rice_1_c

    try:
        return (
            np.frombuffer(decompress_rice_1_c(bytes(stored), _BLOCK, width, n), f"i{width}")
            .astype(f">i{width}")
            .tobytes()
        )
    except CfitsioException as error:
        raise ValueError(str(error)) from None
