"""Decide which sentences of a paper are about one source, and which about another object in the same paper."""

import re
from collections.abc import Sequence

from lexray.text.designations import SourceNames
from lexray.text.latex import strip_markup

#: A sentence with one of these is about the paper's own target, even if it names another object for comparison.
_THIS = re.compile(
    r"(?i)\b(?:this|our) (?:source|object|target|system|ULX|pulsar|binary|star|AGN)\b|\bthe (?:present )?target\b"
)
_OURS = re.compile(r"\b[Oo]ur (?:source|object|target|system)\b")
#: With these phrases a paper returns to its target.
_TURNS_BACK = re.compile(r"^\s*(?:We|Here|Our|In this (?:paper|work|letter|study)|Following (?:its|the) discovery)\b")
#: An object named after one of these is only compared with: the next sentence's 'it' does not mean it.
_COMPARED = re.compile(
    r"(?i)\b(?:similar(?:ly)? to|resembl\w+|like|unlike|than|compar\w+ (?:with|to)|as (?:in|for|seen in)|such as|e\.g\."
    r"|that of|those of|analog\w+ to|distance (?:to|of)|in contrast (?:to|with)|with respect to)\b[^.;]{0,40}$"
    r"|\b(?:in|near|from|of|by|with|to|and)\s+(?:the\s+)?$"
)


def attribute_sentences(sentences: Sequence[str], names: SourceNames) -> list[bool]:
    """Whether each sentence of a text is about this source.

    A sentence that names the source is. A sentence that names only another object is not, nor are the sentences after
    it that name none, until one names the source or the authors return to their own work. A text begins with its
    source. The host galaxy's name changes nothing.

    Parameters
    ----------
    sentences : sequence of str
        The sentences of one text, in order and unmasked.
    names : SourceNames

    >>> names = SourceNames.of(["M82 X-1"])
    >>> sentences = ["It is a ULX in M82.", "X-2 is a pulsar.", "It has a period of 1.37 s.", "X-1 has none."]
    >>> attribute_sentences(sentences, names)
    [True, False, False, True]
    """
    is_about, on_source = [], True
    for sentence in sentences:
        flat = strip_markup(sentence)
        found = names.find(flat)
        other = next((name for name in found if name.who == "other"), None)
        if any(name.who == "source" for name in found) or (other and _THIS.search(flat)):
            about = on_source = True
        elif other:
            about = False
            on_source = on_source and _COMPARED.search(flat[: other.start]) is not None
        else:
            about = on_source = on_source or _TURNS_BACK.match(flat) is not None or _OURS.search(flat) is not None
        is_about.append(about)
    return is_about
