"""Names of a source taken out of text, so that what is learnt from it is physics and not names."""

import re

_PIECES = re.compile(r"[A-Za-z]+|\d+(?:\.\d+)?|[+\-−]")
_CATALOGUE_NUMBER = re.compile(r"^\s*(?:[A-Za-z]+[\s_-]*\d+|\d+[\s_]+[A-Za-z]+)(?=[\s_]+\S)")
SOURCE, HOST = "the source", "its host"


def mask_names(text: str, source_id: str) -> str:
    """Text in which the source is 'the source', and the galaxy or cluster that its name begins with 'its host'.

    Spelling is compared without case, spaces, underscores and hyphens, as in `sources.fold_name`.

    >>> mask_names("NGC300 ULX-1 is a ULX pulsar in NGC 300.", "NGC_300_ULX1")
    'The source is a ULX pulsar in its host.'
    """
    text = _replace(text, source_id, SOURCE)
    host = _CATALOGUE_NUMBER.match(source_id)
    return text if host is None else _replace(text, host.group(), HOST)


def _replace(text: str, name: str, label: str) -> str:
    pieces = _PIECES.findall(name)
    if sum(map(len, pieces)) < 2:  # a name of one letter is a word like any other
        return text
    spelled = r"[\s_\-]*".join(map(re.escape, pieces))
    article = r"(?:\bthe\s+)?"
    pattern = re.compile(rf"{article}(?<![A-Za-z0-9]){spelled}(?![A-Za-z0-9])", re.IGNORECASE)

    def named(match: re.Match[str]) -> str:
        before = text[: match.start()].rstrip()
        return label[0].upper() + label[1:] if not before or before[-1] in ".!?" else label

    return pattern.sub(named, text)
