"""Sentences from templates: ``{one|other}`` chooses, ``<name>`` inserts."""

import re
from collections.abc import Mapping
from random import Random

_CHOICE = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"<(\w+)>")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU]|X-ray|HMXB|LMXB|M dwarf)(?!uni|one|eu)")


def expand(template: str, slots: Mapping[str, str], rng: Random) -> str:
    """A text of a template.

    Parameters
    ----------
    template : str
        A sentence or a part of one.
    slots : mapping
        Texts for ``<name>``; they may hold slots and choices themselves.
    rng : random.Random
        Makes the choices.

    Returns
    -------
    str
        With a capital first letter, and 'an' for 'a' where a vowel follows.
    """
    while _SLOT.search(template):
        template = _SLOT.sub(lambda match: slots[match[1]], template)
    while _CHOICE.search(template):
        template = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
    template = _ARTICLE.sub(r"\1n ", " ".join(template.split()))
    return template[:1].upper() + template[1:]
