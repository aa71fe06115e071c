"""Find the sources of a file: the one that it was made for, those of a source table, or the field as a whole."""

from dataclasses import replace

import numpy as np
from astropy.coordinates import angular_separation

from lexray.array_types import Int64s
from lexray.errors import ConfigError, RefusedInput, one_line
from lexray.events.event_file import EventFile
from lexray.events.extraction import detections
from lexray.events.extraction.apertures import Aperture, apply_regions, extract
from lexray.events.extraction.csc_products import find_csc_products
from lexray.events.extraction.detections import ExtractedSource
from lexray.events.extraction.effective_area import arf_area
from lexray.events.extraction.exposed_area import ExposedArea
from lexray.events.extraction.regions import csc_regions, is_stacked, region_file_of
from lexray.events.extraction.source_table import SourceTable
from lexray.events.extraction.wcs import Plane, known_position
from lexray.events.fits.gzip_stream import unpack
from lexray.sources import SAME_SOURCE_ARCSEC, name_from_position
from lexray.tables.files import read_bytes

_ARCSEC = 3600.0


def extract_sources(
    event_file: EventFile, path: str, sources: SourceTable | None, find_products: bool = True
) -> list[ExtractedSource]:
    """The sources of a file, with the events of each.

    Parameters
    ----------
    event_file : EventFile
    path : str
        The file's path; the Chandra Source Catalog's regions and areas are looked for next to it.
    sources : SourceTable or None
        Sources to look for in fields. A file of one source is named after the one at its position.
    find_products : bool
        Whether to look for these products.

    Raises
    ------
    RefusedInput
        'stacked' where the file mixes observations, 'no_region' where a per-source file of the Chandra Source Catalog
        comes without its regions, 'no_wcs' where a field's events have no sky positions, and sources are looked for,
        'bad_region' where a source's region cannot be applied to this field.
    """
    if is_stacked(event_file.header, path):
        raise RefusedInput("stacked", "the file mixes several observations; take its single observations' files")
    if find_products and region_file_of(path) is not None:
        return [_of_catalogue(event_file, path, sources)]
    whole = detections.whole_file(event_file, stem(path))
    if sources is None:
        return [whole]
    if not event_file.instrument.imaging or "whole_field" not in whole.flags:
        return [_renamed(whole, sources)]
    try:
        return _of_field(event_file, sources)
    except ConfigError as error:  # of a source's region in this field; other fields may have no such source
        raise RefusedInput("bad_region", str(error)) from None


def stem(path: str) -> str:
    """A file's name without its endings."""
    name = path.rpartition("/")[2]
    return name.removesuffix(".gz").removesuffix(".fz").rpartition(".")[0] or name


def _of_field(event_file: EventFile, sources: SourceTable) -> list[ExtractedSource]:
    plane, observed, x, y = _positions(event_file)

    def source_in(aperture: Aperture) -> ExtractedSource:
        i = aperture.source
        name, ra, dec = sources.source_id[i], float(sources.ra[i]), float(sources.dec[i])
        extracted = ExtractedSource(name, ra, dec, observed[aperture.events], region=name)
        return _measured(extracted, aperture, observed, plane, event_file, sources.arf[i])

    return [source_in(aperture) for aperture in extract(x, y, plane, sources, ExposedArea.of(x, y))]


def _of_catalogue(event_file: EventFile, path: str, sources: SourceTable | None) -> ExtractedSource:
    """The source of a Chandra Source Catalog file: `regevt3` holds a rectangle as large as its background's region."""
    try:
        products = find_csc_products(path)
        if "reg3" not in products:
            name = str(region_file_of(path)).rpartition("/")[2]
            raise RefusedInput("no_region", f"its regions are not next to it: {name}; fetch them too")
        source, background = csc_regions(unpack(read_bytes(products["reg3"].path)))
    except (OSError, ConfigError) as error:
        raise RefusedInput("unreadable", f"its regions: {one_line(error)}") from None
    plane, observed, x, y = _positions(event_file)
    aperture = apply_regions(x, y, source, background, ExposedArea.of(x, y))
    ra, dec = (float(value[0]) for value in plane.to_sky(aperture.x, aperture.y))
    region = next((word for word in stem(path).split("_") if word.startswith("r") and word[1:].isdigit()), "")
    own = event_file.header.text("SRCNAME") or event_file.header.text("SOURCE") or name_from_position(ra, dec)
    extracted = ExtractedSource(own, ra, dec, observed[aperture.events], region=region or own)
    arf = products["arf3"].path if "arf3" in products else None
    extracted = _measured(extracted, aperture, observed, plane, event_file, arf)
    return extracted if sources is None else _renamed(extracted, sources)


def _measured(
    source: ExtractedSource, aperture: Aperture, observed: Int64s, plane: Plane, event_file: EventFile, arf: str | None
) -> ExtractedSource:
    """A source with what its aperture measured, and its effective area where there is an ARF: 'bad_arf' without."""
    area: tuple[float, ...] | None = None
    flags = aperture.flags
    if arf is not None:
        try:
            area = arf_area(unpack(read_bytes(arf)), event_file.bands)
        except (OSError, RefusedInput):
            flags += ("bad_arf",)
    return replace(
        source,
        background=observed[aperture.background] if aperture.scale > 0 else None,
        scale=aperture.scale,
        aperture=aperture.radius * plane.pixel_arcsec,
        share=aperture.area_fraction,
        area=area,
        flags=flags,
    )


def _positions(event_file: EventFile) -> tuple[Plane, np.ndarray, np.ndarray, np.ndarray]:
    """The sky's plane, the events that were observed, and where they fell in it, in pixels."""
    x, y = event_file.instrument.sky_columns
    plane = Plane.of(event_file.table, x, y) if x in event_file.table and y in event_file.table else None
    if plane is None:
        raise RefusedInput("no_wcs", f"columns '{x}' and '{y}' with their WCS keywords are needed to find sources")
    observed = event_file.observed()
    places = [known_position(event_file.table.numbers(axis)[observed]) for axis in (x, y)]
    return plane, observed, places[0], places[1]


def _renamed(extracted: ExtractedSource, sources: SourceTable) -> ExtractedSource:
    """A file's own source under the name that the source table has for its position."""
    if not np.isfinite(extracted.ra):
        return extracted
    reach = np.fmax(sources.radius, SAME_SOURCE_ARCSEC)
    near = sources.near(extracted.ra, extracted.dec, float(np.max(reach, initial=0.0)) / _ARCSEC)
    there, here = (sources.ra[near], sources.dec[near]), (extracted.ra, extracted.dec)
    apart = np.degrees(angular_separation(*np.radians(here), *np.radians(there))) * _ARCSEC
    # Each within its own reach: near a cluster of 5′ the table has point sources of 2″.
    inside = np.flatnonzero(apart <= reach[near])
    if not len(inside):
        return extracted
    return replace(extracted, source_id=sources.source_id[near[inside[np.argmin(apart[inside])]]])
