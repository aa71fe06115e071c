"""Rank the papers on a source by how much they say of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lexray.literature.names import name_pattern

#: A paper that treats more objects is a catalogue and says little of each.
CATALOGUE_OBJECTS = 100
#: A paper that treats no more objects discusses each.
_FEW_OBJECTS = 10
#: A paper that is so many years more recent weighs as much as one cited ten times as often.
_YEARS_PER_DEX = 20.0

Row = Mapping[str, Any]


def rank_papers(papers: Sequence[Row], identifiers: Sequence[str]) -> list[Row]:
    """Papers on one source, the best first.

    Papers on the source come first (its name is in the title, or it is their only object), then those that name it in
    the abstract or treat few objects, then the others, and catalogues last. Among equals a paper with a text goes
    before one with a title alone, one that mentions the source twice as often before the other, and then what is
    recent and cited: ten times the citations weigh as much as twenty years.

    Parameters
    ----------
    papers : sequence of mapping
        Rows of the `literature` table on one source.
    identifiers : sequence of str
        Names of the source; those in the rows' `identifiers` are added.

    Returns
    -------
    list of mapping
        The same rows. The order depends on them alone and never on the order that they came in.
    """
    names = dict.fromkeys([*identifiers, *(name for paper in papers for name in paper.get("identifiers") or ())])
    expression = name_pattern(names)

    def names_it(text: str | None) -> bool:
        return bool(expression and text and expression.search(text))

    def order(paper: Row) -> tuple[Any, ...]:
        n_objects = paper.get("n_objects")
        if n_objects is not None and n_objects > CATALOGUE_OBJECTS:
            focus = 3
        elif n_objects == 1 or names_it(paper.get("title")):
            focus = 0
        elif (n_objects is not None and n_objects <= _FEW_OBJECTS) or names_it(paper.get("abstract")):
            focus = 1
        else:
            focus = 2
        has_text = bool(paper.get("abstract") or paper.get("body"))
        mentions = round(math.log2(1 + (paper.get("n_mentions") or 0)))
        standing = math.log10(1 + (paper.get("n_citations") or 0)) + (paper.get("year") or 0) / _YEARS_PER_DEX
        identity = tuple(paper.get(key) or "" for key in ("bibcode", "arxiv", "title", "abstract", "body"))
        return focus, not has_text, -mentions, -standing, *identity

    return sorted(papers, key=order)
