"""Names of sources as texts write them, and the names that are worth looking for in texts."""

import re
from collections.abc import Iterable, Sequence

from lexray.sources import fold_name
from lexray.text.designations import SIMBAD_PREFIX

_PIECES = re.compile(r"[^\W\d_]+|\d+|[+.*'\[\]()]")
#: Between the pieces of a name: blanks, hyphens and dashes, and what LaTeX puts there.
_BETWEEN = r"[\s_\-\u2010-\u2015\u2212~\\,{}$]*"
#: A name with more digits is a catalogue's entry (2MASS, Gaia, a position to the arcsecond): no abstract has it.
_MAX_DIGITS = 9
_MIN_CHARACTERS = 3


def plain_name(identifier: str) -> str:
    """A SIMBAD identifier as people write it: ``NAME Cyg X-1`` is ``Cyg X-1``, ``NGC   300`` is ``NGC 300``."""
    return SIMBAD_PREFIX.sub("", " ".join(identifier.replace("_", " ").split()))


def unique_names(names: Iterable[str]) -> list[str]:
    """Names in their order, each once as `lexray.sources.fold_name` compares them; empty ones left out."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(fold_name(name), name)
    return [name for folded, name in found.items() if folded]


def best_known_first(identifiers: Iterable[str]) -> list[str]:
    """SIMBAD's identifiers of an object as plain names, proper names first, then those with the fewest digits."""

    def order(identifier: str) -> tuple[bool, int, int, str]:
        return not identifier.startswith("NAME "), sum(map(str.isdigit, identifier)), len(identifier), identifier

    return unique_names(plain_name(identifier) for identifier in sorted(identifiers, key=order))


def searchable_names(names: Sequence[str], max_names: int) -> list[str]:
    """Names that papers may use of a source, in their order.

    Catalogue entries (more than nine digits, or a catalogue's bracket) and names of under three characters or without
    a letter are left out.

    Parameters
    ----------
    names : sequence of str
    max_names : int
        Number of names.
    """
    return [name for name in unique_names(map(plain_name, names)) if _is_searchable(name)][:max_names]


def _is_searchable(name: str) -> bool:
    digits, letters = (sum(map(kind, name)) for kind in (str.isdigit, str.isalpha))
    return digits <= _MAX_DIGITS and letters > 0 and digits + letters >= _MIN_CHARACTERS and "[" not in name


def name_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Expression that finds any of some names in a text, however spaced, hyphenated and capitalised; None without any.

    A name counts only whole: ``M 8`` is not in ``M 82``, nor ``X-1`` in ``X-10``.
    """
    found = {
        _BETWEEN.join(re.escape(piece) for piece in pieces): None
        for name in names
        if sum(map(str.isalnum, plain_name(name))) >= _MIN_CHARACTERS and (pieces := _PIECES.findall(plain_name(name)))
    }
    if not found:
        return None
    longest_first = "|".join(sorted(found, key=len, reverse=True))
    return re.compile(rf"(?<![^\W_])(?<!\d\.)(?:{longest_first})(?![^\W_])(?!\.\d)", re.IGNORECASE)
