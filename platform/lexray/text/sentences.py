"""Split scientific prose into sentences: 'et al.', 'e.g.', 'Fig. 2' and '4.7 x 10^{39} erg s^{-1}' end none."""

import re

#: Words before a full stop that does not end a sentence, in lower case.
_ABBREVIATIONS = frozenset(
    """
    approx ca cf dr e.g eq eqn eqs fig figs i.e lett no nos obs pp prof ref refs resp sec sect ser st tab viz vol vs
    w.r.t
    """.split()  # noqa: SIM905 -- a list of one word a line would bury the code
)
_STARTERS = frozenset(
    """
    A All An As At Both But By During For From Here However If In It Its No On Our Since That The Their There These
    They This Thus To Two Using We When While With
    """.split()  # noqa: SIM905 -- a list of one word a line would bury the code
)
_MONTHS = frozenset(
    """
    apr aug dec feb jan jul jun mar nov oct sep sept
    """.split()  # noqa: SIM905 -- a list of one word a line would bury the code
)
#: A stop, what may close behind it, then space and what can begin a sentence.
_BOUNDARY = re.compile(r"[.!?][)\]}\"'”’]*\s+(?=[\"'“‘(\[]*[A-Z0-9$~\\])")
_LAST_WORD = re.compile(r"[A-Za-z](?:[A-Za-z.]*[A-Za-z])?$")


def normalise_whitespace(text: str) -> str:
    """Text with every run of white space made one space, the form in which sentences are quoted."""
    return " ".join(text.split())


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, verbatim but for white space; joined with spaces they give the text again.

    >>> split_sentences("Pulsed at 31.6 s (Smith et al. 2018). It has L = 4.7 x 10^{39} erg s^{-1}.")
    ['Pulsed at 31.6 s (Smith et al. 2018).', 'It has L = 4.7 x 10^{39} erg s^{-1}.']
    """
    text = normalise_whitespace(text)
    sentences, start, dollars, seen = [], 0, 0, 0
    for match in _BOUNDARY.finditer(text):
        dollars += text.count("$", seen, match.start())
        seen = match.start()
        if not dollars % 2 and _ends_sentence(text, start, match):
            sentences.append(text[start : match.end()].rstrip())
            start = match.end()
    if start < len(text):
        sentences.append(text[start:])
    return sentences


def _ends_sentence(text: str, start: int, boundary: re.Match[str]) -> bool:
    """Whether a stop ends the sentence that began at `start`, judged by the word before it."""
    if text[boundary.start()] != ".":
        return True
    # No abbreviation is longer than this, and the window keeps the search linear in the text's length.
    before = text[max(start, boundary.start() - 16) : boundary.start()]
    found = _LAST_WORD.search(before)
    if found is None:
        return True
    word = found.group()
    if len(word) == 1 and word.isupper():
        # '10^6 K. The' ends one, 'J. Smith' does not; between the two the next word decides.
        leading = before[: found.start()].rstrip()
        return leading[-1:].isdigit() or leading.endswith(("}", ")", "$")) or _begins_sentence(text, boundary.end())
    if word.lower() == "al":
        return _begins_sentence(text, boundary.end())
    if word.lower() in _MONTHS:
        return not text[boundary.end()].isdigit()
    return word.lower() not in _ABBREVIATIONS


def _begins_sentence(text: str, at: int) -> bool:
    """Whether the word at a place is one with which sentences begin and surnames do not."""
    return re.split(r"\W", text[at : at + 16], maxsplit=1)[0] in _STARTERS
