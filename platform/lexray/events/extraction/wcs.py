"""Where on the sky the events of an imager's file lie: the pixel-list WCS of its position columns.

An imager's file gives each event a pixel X, Y of one tangent plane for the whole observation, and keywords numbered
by column say where that plane lies (FITS standard 4.0, section 8 and table 22: TCTYPn, TCRPXn …). XMM-Newton's files
repeat them under names of their own (REFXCRPX …), and some carry only those.
"""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import FK5, ICRS, Galactic, SkyCoord
from astropy.coordinates.baseframe import BaseCoordinateFrame
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from numpy.typing import ArrayLike

from lexray.array_types import Float64s
from lexray.errors import RefusedInput, one_line
from lexray.events.fits.binary_table import BinaryTable
from lexray.events.fits.headers import Header

#: FITS counts pixels from 1; events' positions are FITS pixels.
_ORIGIN = 1
_CELESTIAL = ("RA", "DEC", "GLON", "GLAT")


def known_position(pixels: Float64s) -> Float64s:
    """Pixels, NaN where they are farther than any field reaches and only damaged bytes say so."""
    # The finest, eROSITA's of 0.05″, are 3 × 10⁷ around the sky.
    return np.where(np.abs(pixels) <= 1e9, pixels, np.nan)


@dataclass(frozen=True)
class Plane:
    """The plane of the sky in which a file's X and Y are.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        Of FITS pixels, the first being 1.
    frame : astropy coordinate frame
        ICRS, FK5 or galactic: what the file's coordinates are; positions given and returned here are ICRS.
    pixel_arcsec : float
        Side of the square that is as large as a pixel at the reference position, arcsec.
    """

    wcs: WCS
    frame: BaseCoordinateFrame
    pixel_arcsec: float

    @classmethod
    def of(cls, table: BinaryTable, x: str, y: str) -> "Plane | None":
        """Plane of a table's columns.

        Parameters
        ----------
        table : BinaryTable
        x, y : str
            Names of the position columns, in any case.

        Returns
        -------
        Plane or None
            None where the header says nothing of these columns' place on the sky.

        Raises
        ------
        RefusedInput
            'missing_column'; 'bad_wcs' where the keywords contradict one another, hold no numbers, or name a frame
            that does not lead to ICRS (FK4 among them: it needs an epoch that event files do not give).
        """
        axes = [_Axis.of(table, x), _Axis.of(table, y)]
        if not any(axis.type.split("-")[0] in _CELESTIAL for axis in axes):
            return None
        broken = [axis for axis in axes if not np.all(np.isfinite((axis.pixel, axis.value)))]
        if broken:
            raise RefusedInput("bad_wcs", f"the reference pixel or value of column '{broken[0].name}' is not a number")
        wcs = WCS(naxis=2)
        try:
            wcs.wcs.ctype = [axis.type for axis in axes]
            wcs.wcs.cunit = [axis.unit or "deg" for axis in axes]
            wcs.wcs.crpix = [axis.pixel for axis in axes]
            wcs.wcs.crval = [axis.value for axis in axes]
            _set_scale(wcs, table.header, axes)
            _set_frame(wcs, table.header, axes)
            wcs.wcs.set()
            frame = wcs_to_celestial_frame(wcs)
        except RefusedInput:
            raise
        except Exception as error:  # wcslib's own errors have a dozen classes, one for each way to be wrong
            raise RefusedInput(
                "bad_wcs", f"columns '{axes[0].name}' and '{axes[1].name}': {one_line(error)}"
            ) from error
        if not isinstance(frame, ICRS | FK5 | Galactic):
            raise RefusedInput("bad_wcs", f"positions are in {frame.name.upper()}, which is not converted to ICRS")
        size = float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600)
        if not 1e-3 <= size <= 1e4:  # every instrument's are between; beyond no number of pixels is a distance
            raise RefusedInput("bad_wcs", f"pixels of '{axes[0].name}', '{axes[1].name}' measure {size:g} arcsec")
        return cls(wcs, frame, size)

    def to_pixels(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Float64s, Float64s]:
        """Pixels of positions.

        Parameters
        ----------
        ra, dec : array_like, f8[N]
            Degrees, ICRS.

        Returns
        -------
        x, y : f8[N]
            NaN where a position has none: behind the tangent plane, farther than any field reaches, or itself NaN.
        """
        lon, lat = np.atleast_1d(np.asarray(ra, dtype=np.float64)), np.atleast_1d(np.asarray(dec, dtype=np.float64))
        if not isinstance(self.frame, ICRS):
            sky = SkyCoord(lon, lat, unit="deg").transform_to(self.frame).spherical
            lon, lat = sky.lon.deg, sky.lat.deg
        world = np.empty((len(lon), 2))
        world[:, self.wcs.wcs.lng], world[:, self.wcs.wcs.lat] = lon, lat
        pixels = self.wcs.wcs_world2pix(world, _ORIGIN)
        return known_position(pixels[:, 0]), known_position(pixels[:, 1])

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Float64s, Float64s]:
        """Positions of pixels.

        Parameters
        ----------
        x, y : array_like, f8[N]
            FITS pixels.

        Returns
        -------
        ra, dec : f8[N]
            Degrees, ICRS, 0 ≤ ra < 360; NaN where a pixel lies off the sky.
        """
        pixels = np.stack([np.atleast_1d(np.asarray(axis, dtype=np.float64)) for axis in (x, y)], axis=1)
        world = self.wcs.wcs_pix2world(pixels, _ORIGIN)
        lon, lat = world[:, self.wcs.wcs.lng], world[:, self.wcs.wcs.lat]
        if not isinstance(self.frame, ICRS):
            sky = SkyCoord(lon, lat, unit="deg", frame=self.frame).icrs
            lon, lat = sky.ra.deg, sky.dec.deg
        return lon % 360.0, lat

    def field(self, x: Float64s, y: Float64s) -> tuple[float, float, float]:
        """Circle on the sky around a set of pixels.

        Parameters
        ----------
        x, y : f8[N]
            At least one, finite.

        Returns
        -------
        ra, dec, radius : float
            Degrees, ICRS. The whole sky (radius 180) where the pixels' corners do not lie on it.
        """
        low_x, high_x, low_y, high_y = np.min(x), np.max(x), np.min(y), np.max(y)
        edges_x = np.array([0.5, 0, 0, 1, 1, 0.5, 0.5, 0, 1]) * (high_x - low_x) + low_x
        edges_y = np.array([0.5, 0, 1, 0, 1, 0, 1, 0.5, 0.5]) * (high_y - low_y) + low_y
        ra, dec = self.to_sky(edges_x, edges_y)
        if not np.all(np.isfinite(ra) & np.isfinite(dec)):
            return 0.0, 0.0, 180.0
        sky = SkyCoord(ra, dec, unit="deg")
        return float(ra[0]), float(dec[0]), float(np.max(sky.separation(sky[0]).to_value(u.deg)))


@dataclass(frozen=True)
class _Axis:
    """What the header says of one position column."""

    number: int
    name: str
    type: str
    unit: str
    pixel: float
    value: float
    step: float

    @classmethod
    def of(cls, table: BinaryTable, name: str) -> "_Axis":
        column, header = table.column(name), table.header
        n, own = column.number, f"REF{column.name.upper()}"
        key = {part: f"T{part}{n}" for part in ("CTYP", "CUNI", "CRPX", "CRVL", "CDLT")}
        # Some files number keywords of no meaning (TCTYP2 = 'RAWX'); XMM's own names then have the word.
        if header.text(key["CTYP"]).split("-")[0] not in _CELESTIAL and header.text(f"{own}CTYP"):
            key = {part: f"{own}{part}" for part in key}
        return cls(
            number=n,
            name=column.name,
            type=header.text(key["CTYP"]).upper(),
            unit=header.text(key["CUNI"]),
            pixel=header.number(key["CRPX"]),
            value=header.number(key["CRVL"]),
            step=header.number(key["CDLT"]),
        )


def _set_scale(wcs: WCS, header: Header, axes: list[_Axis]) -> None:
    """The linear part: a CD matrix (TCDn_k), a PC matrix (TPCn_k) or a rotation (TCROTn), and the pixels' sizes."""

    def matrix(*stems: str) -> Float64s:
        cells = [[header.number(f"{stem}{i.number}_{k.number}") for stem in stems] for i in axes for k in axes]
        return np.array([next((c for c in cell if np.isfinite(c)), np.nan) for cell in cells]).reshape(2, 2)

    cd, pc = matrix("TCD", "TC"), matrix("TPC", "TP")
    if np.any(np.isfinite(cd)):
        wcs.wcs.cd = np.where(np.isfinite(cd), cd, 0.0)
    else:
        steps = np.array([axis.step for axis in axes])
        if not np.all(np.isfinite(steps) & (steps != 0)):
            raise RefusedInput(
                "bad_wcs", f"the pixels of '{axes[0].name}', '{axes[1].name}' measure {steps} {axes[0].unit}"
            )
        rotation = header.number(f"TCROT{axes[1].number}")
        if np.any(np.isfinite(pc)):
            wcs.wcs.pc = np.where(np.isfinite(pc), pc, np.eye(2))
        elif np.isfinite(rotation):
            wcs.wcs.crota = [0.0, rotation]
        wcs.wcs.cdelt = steps


def _set_frame(wcs: WCS, header: Header, axes: list[_Axis]) -> None:
    """Reference frame, equinox and the native pole, where the header gives them."""
    for attribute, stem, whole in (
        ("lonpole", "LONP", "LONPOLE"),
        ("latpole", "LATP", "LATPOLE"),
        ("equinox", "EQUI", "EQUINOX"),
    ):
        for key in (whole, *(f"{stem}{axis.number}" for axis in axes)):
            if np.isfinite(value := header.number(key)):
                setattr(wcs.wcs, attribute, value)
    if axes[0].type.startswith("G"):
        return  # galactic coordinates have no equinox; a RADESYS next to them means something else
    said = next(filter(None, (header.text(key) for key in (f"RADE{axes[0].number}", "RADESYS", "RADECSYS"))), "")
    # FITS standard 4.0, section 8.3: what holds where the header does not say.
    by_equinox = "ICRS" if np.isnan(wcs.wcs.equinox) else "FK5" if wcs.wcs.equinox >= 1984 else "FK4"
    wcs.wcs.radesys = said.upper() or by_equinox
