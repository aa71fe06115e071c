"""Which sentences of a paper speak of one source, and which of another object in the same paper."""

import re
from collections.abc import Sequence

from lexray.text.designations import SourceNames
from lexray.text.latex import strip_markup

#: A sentence that says so speaks of the paper's own target, also where another object is named for comparison.
_THIS = re.compile(
    r"\b(?:this|our) (?:source|object|target|system|ULX|pulsar|binary|star|AGN)\b|\bthe (?:present )?target\b",
    re.IGNORECASE,
)
_OURS = re.compile(r"\b[Oo]ur (?:source|object|target|system)\b")
#: With these a paper turns back to its target.
_TURNS_BACK = re.compile(r"^\s*(?:We|Here|Our|In this (?:paper|work|letter|study)|Following (?:its|the) discovery)\b")
#: Another object behind one of these is compared with, and is not what the next sentence's 'it' means.
_COMPARED = re.compile(
    r"\b(?:similar(?:ly)? to|resembl\w+|like|unlike|than|compar\w+ (?:with|to)|as (?:in|for|seen in)|such as|e\.g\."
    r"|that of|those of|analog\w+ to|distance (?:to|of)|in contrast (?:to|with)|with respect to)\b[^.;]{0,40}$"
    r"|\b(?:in|near|from|of|by|with|to|and)\s+(?:the\s+)?$",
    re.IGNORECASE,
)


def attribute_sentences(sentences: Sequence[str], names: SourceNames) -> list[bool]:
    """Whether each sentence of a text speaks of this source.

    A sentence that names it does. One that names another object and not this one does not, and neither do those behind
    it that name none, until the source is named or the authors turn back to their own work. A text begins with its
    source. The host galaxy's name changes nothing.

    Parameters
    ----------
    sentences : sequence of str
        Of one text, in order and unmasked.
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
        who = {name.who for name in found}
        if "source" in who or ("other" in who and _THIS.search(flat)):
            on_source = True
            is_about.append(True)
        elif "other" in who:
            is_about.append(False)
            first = next(name for name in found if name.who == "other")
            if not _COMPARED.search(flat[: first.start]):
                on_source = False
        else:
            on_source = on_source or _TURNS_BACK.match(flat) is not None or _OURS.search(flat) is not None
            is_about.append(on_source)
    return is_about
