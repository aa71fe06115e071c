"""Grounding: look for each number with its unit, and each class, of a summary in the papers that it was made from.

A number or class counts only if it stands in a sentence about this source, and not in an instruction to the reader.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lexray.text.attribution import attribute_sentences
from lexray.text.designations import SourceNames
from lexray.text.labels import UNKNOWN, LabelCategory
from lexray.text.lexicon import find_mentions, mentioned_labels, trigger_words, with_implied
from lexray.text.prompt_injection import remove_prompt_injections
from lexray.text.quantities import QuantityMention, find_quantities, is_same_quantity, quantity_type, read_quantity
from lexray.text.sentences import split_sentences

_CATEGORY_NAMES: Mapping[str, str] = {
    "object_class": "the class", "variability": "the variability", "spectral_shape": "the spectral shape"
}  # fmt: skip

#: A measured number as an answer lists it: name, number, unit, and which of the papers has it (None: any).
ReportedQuantity = tuple[str, str, str, int | None]


@dataclass(frozen=True)
class Grounding:
    """The result: how much of a summary was found in its papers.

    Attributes
    ----------
    share : float or None
        Share of the numbers and classes that was found; None where a summary has none.
    missing : tuple of str
        What was not found, for people and for the prompt of a second attempt.
    """

    share: float | None
    missing: tuple[str, ...]


class Evidence:
    """The sentences of a paper about the source; their numbers and labels are read when they are first needed.

    Parameters
    ----------
    sentences : sequence of str
        The paper's, as `sentences_about` returns them.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = tuple(sentences)
        self._lowered = [sentence.lower() for sentence in self.sentences]

    def has(self, quantity: QuantityMention) -> bool:
        """Whether a sentence gives this number."""
        # First the sentences in which it stands word for word, so that the numbers of others are rarely read.
        return any(
            is_same_quantity(quantity, found)
            for sentence in sorted(self.sentences, key=lambda sentence: quantity.text not in sentence)
            for found in find_quantities(sentence, number_words=True)
        )

    def labels(self, wanted: Collection[tuple[LabelCategory, str]]) -> set[tuple[LabelCategory, str]]:
        """Labels that sentences with a word for one of `wanted` speak of."""
        words = trigger_words(wanted)
        texts = zip(self.sentences, self._lowered, strict=True)
        candidates = [sentence for sentence, lowered in texts if any(word in lowered for word in words)]
        return {label for sentence in candidates for label in mentioned_labels(sentence)}


def paper_texts(paper: Mapping[str, Any]) -> list[str]:
    """Title, abstract and body of a row of `literature`, as far as it has them."""
    return [text for text in (paper.get("title"), paper.get("abstract"), paper.get("body")) if text]


def sentences_about(paper: Mapping[str, Any], names: SourceNames) -> list[str]:
    """Sentences of a paper that are about the source and are no instructions, in order."""
    found: list[str] = []
    names = names.in_paper(paper)
    for text in paper_texts(paper):
        sentences = split_sentences(remove_prompt_injections(text)[0])
        found += itertools.compress(sentences, attribute_sentences(sentences, names))
    return found


def ground(
    summary: str,
    labels: Mapping[LabelCategory, str],
    quantities: Sequence[ReportedQuantity],
    papers: Sequence[Mapping[str, Any]],
    names: Sequence[str] | SourceNames,
) -> Grounding:
    """Look for a summary's numbers and classes in the papers that it was made from.

    Parameters
    ----------
    summary : str
        Prose, masked or not.
    labels : mapping
        `object_class`, `variability` and `spectral_shape`; 'unknown' is not looked for.
    quantities : sequence of (name, number, unit, paper)
        Looked for in the paper with that index, or in all.
    papers : sequence of mapping
        Rows of the `literature` table, unmasked.
    names : sequence of str or SourceNames
        Every name of the source.

    Returns
    -------
    Grounding
    """
    known = names if isinstance(names, SourceNames) else SourceNames.of(names)
    return ground_in_evidence(
        [Evidence(sentences_about(paper, known)) for paper in papers], [summary], labels, quantities
    )


def ground_in_evidence(
    evidence: Sequence[Evidence],
    texts: Sequence[str],
    labels: Mapping[LabelCategory, str],
    quantities: Sequence[ReportedQuantity],
) -> Grounding:
    """As `ground`, in papers that have been read already; of a summary that is one text, or sentences of their own."""
    stated = list(itertools.chain.from_iterable(map(find_quantities, texts)))
    missing = [
        f'{quantity_type(found)} of "{found.text}" is in no sentence on the source'
        for found in stated
        if not any(paper.has(found) for paper in evidence)
    ]
    missing += [
        f'{name} of "{_with_unit(value, unit)}" {problem}'
        for name, value, unit, paper in quantities
        if (problem := _check_quantity(evidence, value, unit, paper))
    ]
    named: dict[tuple[LabelCategory, str], str] = {
        (kind, label): f'{_CATEGORY_NAMES[kind]} "{label}"' for kind, label in labels.items() if label != UNKNOWN
    }
    for mention in itertools.chain.from_iterable(map(find_mentions, texts)):
        if mention.stance != "denied":
            named.setdefault((mention.kind, mention.label), f'the word "{mention.words}"')
    supported = with_implied(label for paper in evidence for label in paper.labels(named))
    n_checks = len(stated) + len(quantities) + len(named)
    missing += [f"{words} is in no sentence on the source" for label, words in named.items() if label not in supported]
    return Grounding(1 - len(missing) / n_checks if n_checks else None, tuple(missing))


def _check_quantity(evidence: Sequence[Evidence], value: str, unit: str, paper: int | None) -> str:
    """Why a listed quantity was not found; empty where it was."""
    found = read_quantity(value, unit)
    if not found:
        return "is not a number with a known unit"
    if paper is not None and not 0 <= paper < len(evidence):
        return "names a paper that was not given"
    among = evidence if paper is None else [evidence[paper]]
    if all(any(of_paper.has(one) for of_paper in among) for one in found):
        return ""
    return "is in no sentence on the source" + ("" if paper is None else " in the paper that it names")


def _with_unit(value: str, unit: str) -> str:
    return value if unit.strip() in ("", "-") else f"{value} {unit}"
