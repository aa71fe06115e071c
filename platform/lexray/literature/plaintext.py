"""Titles and abstracts as services send them, in HTML, as plain text."""

import html
import re

# Only tags that journals use: an abstract's "S/N < 3" and "a<b" are no tags.
_RAISED = re.compile(r"<(su[pb])\b[^<>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"<(?:p|br|/p)\b[^<>]*/?>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:su[pb]|p|br|b|i|u|em|strong|tt|a|span|small|italic|inline-formula|tex-math|math|mml:\w+|m(?:row|i|n|o|sup|sub|"
    r"text|over|under|frac|style))\b[^<>]*>",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"not available|no abstract(?: available)?|abstract not available|unavailable", re.IGNORECASE)


def plain_text(text: str | None) -> str | None:
    """A text without HTML: entities as characters, ``10<SUP>38</SUP>`` as ``10^38``, ``N<SUB>H</SUB>`` as ``N_H``.

    None for a text that is empty, or says that there is none.
    """
    if not text:
        return None
    while (raised := _RAISED.sub(_written, text)) != text:
        text = raised
    text = " ".join(html.unescape(_TAG.sub("", _BREAK.sub(" ", text))).split())
    return None if not text or _NOTHING.fullmatch(text.rstrip(". ")) else text


def _written(match: re.Match[str]) -> str:
    sign = "^" if match[1].lower() == "sup" else "_"
    return sign + match[2].strip() if match[2].strip() else ""
