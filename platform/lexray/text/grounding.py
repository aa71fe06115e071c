"""Whether a summary says what its papers say: each number with its unit and each named class is looked for in them.

It counts only where it stands in a sentence on this source, and not in one that tells the reader what to do.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lexray.text.attribution import about
from lexray.text.designations import Names
from lexray.text.labels import UNKNOWN, LabelKind
from lexray.text.lexicon import find_mentions, mentions, with_implied, words_for
from lexray.text.prompt_injection import without_instructions
from lexray.text.quantities import Found, find_quantities, kind_of, read_quantity, same
from lexray.text.sentences import split_sentences

_CALLED: Mapping[str, str] = {
    "object_class": "the class", "variability": "the variability", "spectral_shape": "the spectral shape"
}  # fmt: skip

#: A measured number as an answer lists it: name, number, unit, and which of the papers has it (None: any).
Listed = tuple[str, str, str, int | None]


@dataclass(frozen=True)
class Grounding:
    """What was found.

    Attributes
    ----------
    share : float or None
        Of the numbers and named classes; None where a summary has none.
    missing : tuple of str
        What was not found, for people and for the prompt of a second try.
    """

    share: float | None
    missing: tuple[str, ...]


class Said:
    """What the sentences of a paper on the source say, each read when it is first asked for.

    Parameters
    ----------
    sentences : sequence of str
        Of the paper, as `sentences_on` gives them.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = tuple(sentences)
        self._lowered = [sentence.lower() for sentence in self.sentences]
        self._quantities: dict[int, tuple[Found, ...]] = {}
        self._labels: dict[int, set[tuple[LabelKind, str]]] = {}

    def has(self, quantity: Found) -> bool:
        """Whether a sentence gives this number."""
        return any(same(quantity, found) for i in range(len(self.sentences)) for found in self._quantities_of(i))

    def labels(self, wanted: Collection[tuple[LabelKind, str]]) -> set[tuple[LabelKind, str]]:
        """Labels that sentences with a word for one of `wanted` speak of."""
        words = words_for(wanted)
        told = [i for i, lowered in enumerate(self._lowered) if any(word in lowered for word in words)]
        return {label for i in told for label in self._labels_of(i)}

    def _quantities_of(self, i: int) -> tuple[Found, ...]:
        if i not in self._quantities:
            self._quantities[i] = find_quantities(self.sentences[i], counted=True)
        return self._quantities[i]

    def _labels_of(self, i: int) -> set[tuple[LabelKind, str]]:
        if i not in self._labels:
            self._labels[i] = mentions(self.sentences[i])
        return self._labels[i]


def texts(paper: Mapping[str, Any]) -> list[str]:
    """Title, abstract and body of a row of `literature`, as far as it has them."""
    return [text for text in (paper.get("title"), paper.get("abstract"), paper.get("body")) if text]


def sentences_on(paper: Mapping[str, Any], names: Names) -> list[str]:
    """Sentences of a paper that speak of the source and are no instructions, in order."""
    found = []
    names = names.in_paper(paper)
    for text in texts(paper):
        trusted, _ = without_instructions(text)
        sentences = split_sentences(trusted)
        found += [sentence for sentence, ours in zip(sentences, about(sentences, names), strict=True) if ours]
    return found


def ground(
    summary: str,
    labels: Mapping[LabelKind, str],
    quantities: Sequence[Listed],
    papers: Sequence[Mapping[str, Any]],
    names: Sequence[str] | Names,
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
    names : sequence of str or Names
        Every name of the source.

    Returns
    -------
    Grounding
    """
    known = names if isinstance(names, Names) else Names.of(names)
    return ground_in([Said(sentences_on(paper, known)) for paper in papers], summary, labels, quantities)


def ground_in(
    evidence: Sequence[Said], summary: str, labels: Mapping[LabelKind, str], quantities: Sequence[Listed]
) -> Grounding:
    """As `ground`, in papers that have been read already."""
    n_checks, missing = 0, []
    for found in find_quantities(summary):
        n_checks += 1
        if not any(said.has(found) for said in evidence):
            missing.append(f'{kind_of(found)} of "{found.text}" is in no sentence on the source')
    for name, value, unit, paper in quantities:
        n_checks += 1
        problem = _look_up(evidence, value, unit, paper)
        if problem:
            missing.append(f'{name} of "{_written(value, unit)}" {problem}')
    named: dict[tuple[LabelKind, str], str] = {
        (kind, label): f'{_CALLED[kind]} "{label}"' for kind, label in labels.items() if label != UNKNOWN
    }
    for mention in find_mentions(summary):
        if mention.stance != "denied":
            named.setdefault((mention.kind, mention.label), f'the word "{mention.words}"')
    said = with_implied(label for paper in evidence for label in paper.labels(named))
    n_checks += len(named)
    missing += [f"{words} is in no sentence on the source" for label, words in named.items() if label not in said]
    return Grounding(1 - len(missing) / n_checks if n_checks else None, tuple(missing))


def _look_up(evidence: Sequence[Said], value: str, unit: str, paper: int | None) -> str:
    """What is wrong with a listed quantity; empty where it was found."""
    found = read_quantity(value, unit)
    if not found:
        return "is no number with a unit that is known"
    if paper is None:
        return (
            "" if all(any(said.has(one) for said in evidence) for one in found) else "is in no sentence on the source"
        )
    if not 0 <= paper < len(evidence):
        return "names a paper that was not given"
    return (
        ""
        if all(evidence[paper].has(one) for one in found)
        else "is in no sentence on the source in the paper that it names"
    )


def _written(value: str, unit: str) -> str:
    return value if unit.strip() in ("", "-") else f"{value} {unit}"
