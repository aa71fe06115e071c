"""Missions whose files are known and yet not read, and why: what else looks like an X-ray event list."""

_GAMMA = "it sees gamma rays, and its energies are in MeV; Lexray reads X-ray event lists in keV"
_CODED = "a coded mask spreads every source over its whole detector, so that a file's events are no source's"
_NOT_YET = "its conventions are not written down here yet (docs/missions.md says how)"

#: By the header's TELESCOP in upper case; by 'TELESCOP/INSTRUME' where its instruments differ.
_WHY = {
    "GLAST/LAT": f"Fermi LAT: {_GAMMA}",
    "GLAST/GBM": "Fermi GBM: its detectors see the whole sky, so that a file's events are no source's",
    "GLAST": f"Fermi: {_GAMMA}",
    "FERMI": f"Fermi: {_GAMMA}",
    "AGILE": f"AGILE: {_GAMMA}",
    "CGRO": f"Compton: {_GAMMA}",
    "XTE": "RXTE's raw modes (science event and science array) hold packed words, not times and energies: unpack them "
    "with decodeevt first, and mind that Lexray does not know PCA's channels",
    "INTEGRAL": f"INTEGRAL: {_CODED}",
    "HITOMI": f"Hitomi: {_NOT_YET}",
    "XRISM": f"XRISM: {_NOT_YET}",
    "SUZAKU": f"Suzaku: {_NOT_YET}",
    "ASCA": f"ASCA: {_NOT_YET}",
    "ROSAT": f"ROSAT: {_NOT_YET}",
    "HXMT": f"Insight-HXMT: {_NOT_YET}",
    "ASTROSAT": f"AstroSat: {_NOT_YET}",
    "IXPE": f"IXPE: {_NOT_YET}",
    "EP": f"Einstein Probe: {_NOT_YET}",
}


def why_unsupported(telescope: str, instrument: str) -> str:
    """Why a mission's files are not read, for a person; '' where the mission is not known at all.

    Parameters
    ----------
    telescope, instrument : str
        The header's TELESCOP and INSTRUME.
    """
    name = telescope.upper()
    return _WHY.get(f"{name}/{instrument.upper()}", _WHY.get(name, ""))
