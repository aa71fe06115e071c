"""Where a simulated observation pointed, and where on its sky image a source's events fall."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Size of a sky pixel, and the pixel of the tangent point, as in Chandra's event files.
PIXEL_ARCSEC, CENTRE_PIXEL = 0.492, 4096.5


@dataclass(frozen=True)
class Pointing:
    """Attitude of an observation and the source's place in it.

    Attributes
    ----------
    ra, dec, roll : float
        Of the optical axis, degrees.
    x, y : float
        The source's sky pixel.
    off_axis : float
        Arcminutes between the two.
    ccd_id : int
        Chip that the source falls on.
    """

    ra: float
    dec: float
    roll: float
    x: float
    y: float
    off_axis: float
    ccd_id: int

    def scatter(self, n: int, generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Sky pixels of `n` events: a round Gaussian that widens with the off-axis angle."""
        sigma = (0.45 + 0.04 * self.off_axis**2) / PIXEL_ARCSEC
        offset = generator.normal(0.0, sigma, (2, n))
        return (self.x + offset[0]).astype(np.float32), (self.y + offset[1]).astype(np.float32)


def tangent_pixel(ra: float, dec: float, ra_0: float, dec_0: float) -> tuple[float, float]:
    """Sky pixel of a position in the TAN projection about (ra_0, dec_0), all in degrees."""
    a, d, d_0 = np.radians(ra - ra_0), np.radians(dec), np.radians(dec_0)
    cosine = np.sin(d) * np.sin(d_0) + np.cos(d) * np.cos(d_0) * np.cos(a)
    xi = np.cos(d) * np.sin(a) / cosine
    eta = (np.sin(d) * np.cos(d_0) - np.cos(d) * np.sin(d_0) * np.cos(a)) / cosine
    pixels = np.degrees(np.array([-xi, eta])) * 3600 / PIXEL_ARCSEC + CENTRE_PIXEL
    return float(pixels[0]), float(pixels[1])


def draw_pointing(ra: float, dec: float, generator: np.random.Generator) -> Pointing:
    """An attitude that sees the source at (ra, dec) within 8 arcminutes of the axis."""
    off_axis = 8 * float(np.sqrt(generator.random()))
    angle = float(generator.uniform(0, 2 * np.pi))
    distance, d = np.radians(off_axis / 60), np.radians(dec)
    dec_0 = np.arcsin(np.sin(d) * np.cos(distance) + np.cos(d) * np.sin(distance) * np.cos(angle))
    ra_0 = np.radians(ra) + np.arctan2(
        np.sin(angle) * np.sin(distance) * np.cos(d), np.cos(distance) - np.sin(d) * np.sin(dec_0)
    )
    axis = float(np.degrees(ra_0) % 360), float(np.degrees(dec_0))
    x, y = tangent_pixel(ra, dec, *axis)
    return Pointing(*axis, float(generator.uniform(0, 360)), x, y, off_axis, int(generator.integers(0, 4)))
