"""Merge the rows of one paper that several services returned."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lexray.literature.ranking import rank_papers

Row = dict[str, Any]

#: Whose match a row keeps: SIMBAD's is by object, a file's by its author, ADS's by a name in a text.
_MATCH_PRIORITY = ("simbad", "file", "ads")
#: Whose texts and numbers a row keeps: a file's were chosen, SIMBAD's are often truncated.
_TEXT_PRIORITY = ("file", "ads", "simbad")
_MATCH_COLUMNS = (
    "source_id",
    "separation",
    "matched_by",
    "error_source",
    "error_object",
    "proper_motion",
    "p_chance",
    "object",
    "found_by",
)
_PAPER_COLUMNS = ("bibcode", "arxiv", "year", "title", "abstract", "body")
_COUNT_PRIORITY = {
    "n_objects": _MATCH_PRIORITY,
    "n_mentions": _MATCH_PRIORITY,
    "n_citations": ("ads", "file", "simbad"),
}
_ARXIV_VERSION = re.compile(r"v\d+$")


def deduplicate(rows: Sequence[Row]) -> list[Row]:
    """Rows of one source, each paper once.

    Rows are one paper where they share the bibcode or the arXiv number. One that has neither is the paper of the same
    title that has, else that of the same words throughout. A value that a row lacks is another's.

    Parameters
    ----------
    rows : sequence of dict
        Of the `literature` table, of one source.

    Returns
    -------
    list of dict
        In the order in which the papers first came, those without an identifier last.
    """
    papers: list[list[Row]] = []
    place: dict[tuple[str, ...], int] = {}
    for row in sorted(rows, key=lambda row: not _identifiers(row)):
        keys = _identifiers(row) or [("title", _title_key(row["title"])) if row["title"] else ("",)]
        places = sorted({place[key] for key in keys if key in place})
        if not _identifiers(row) and not places:
            keys = [("words", *(row[key] or "" for key in ("title", "abstract", "body")))]
            places = [place[key] for key in keys if key in place]
        if not places:
            places = [len(papers)]
            papers.append([])
        first, *others = places
        papers[first].append(row)
        for other in others:  # this row has the identifiers of both
            papers[first] += papers[other]
            papers[other] = []
            place |= {key: first for key, index in place.items() if index == other}
        place |= dict.fromkeys(keys, first)
        if _identifiers(row) and row["title"]:
            place.setdefault(("title", _title_key(row["title"])), first)
    return [_merge_rows(paper) for paper in papers if paper]


def select_papers(rows: Sequence[Row], max_objects: int | None, max_papers: int | None) -> tuple[list[Row], int, int]:
    """The papers of one source to keep, in `ranking.rank_papers`'s order.

    Returns
    -------
    rows : list of dict
    catalogues : int
        Left out since they treat more than `max_objects` objects.
    surplus : int
        Left out behind the first `max_papers`.
    """
    few = [row for row in rows if max_objects is None or (row["n_objects"] or 0) <= max_objects]
    ranked = [dict(row) for row in rank_papers(few, sorted({row["source_id"] for row in few}))]
    return ranked[:max_papers], len(rows) - len(few), len(ranked) - len(ranked[:max_papers])


def _identifiers(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [("bibcode", row["bibcode"])] if row["bibcode"] else []
    if row["arxiv"]:
        found.append(("arxiv", _ARXIV_VERSION.sub("", row["arxiv"].casefold().removeprefix("arxiv:").strip())))
    return found


def _title_key(title: str) -> str:
    return "".join(filter(str.isalnum, title.casefold()))


def _merge_rows(rows: Sequence[Row]) -> Row:
    def first(order: Sequence[str]) -> list[Row]:
        return sorted(rows, key=lambda row: order.index(row["found_by"]))

    matched, written = first(_MATCH_PRIORITY), first(_TEXT_PRIORITY)
    return (
        {key: matched[0][key] for key in _MATCH_COLUMNS}
        | {key: next((row[key] for row in written if row[key]), None) for key in _PAPER_COLUMNS}
        | {
            key: next((row[key] for row in first(order) if row[key] is not None), None)
            for key, order in _COUNT_PRIORITY.items()
        }
        | {"identifiers": list(dict.fromkeys(name for row in matched for name in row["identifiers"] or ()))}
    )
