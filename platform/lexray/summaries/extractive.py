"""Summaries without a model: the most informative sentences of a source's papers, the same on every run.

A sentence scores by its physical words and its quantities; a word that recurs in the papers of many sources counts
little. Sentences are chosen by maximal marginal relevance (Carbonell & Goldstein 1998), so that each adds something,
with a preference for the first to say what the source is, how it varies and what its spectrum looks like. They stand in
the papers' order. None is cut; none speaks of another source or to the reader.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lexray.summaries.schema import MAX_QUANTITIES
from lexray.text.designations import SourceNames
from lexray.text.grounding import Evidence, ground_in_evidence, paper_texts, sentences_about
from lexray.text.labels import UNKNOWN, LabelCategory
from lexray.text.lexicon import LABEL_CATEGORIES, majority_labels, mentioned_labels
from lexray.text.masking import NameMask
from lexray.text.quantities import find_quantities, format_unit
from lexray.text.quantity_names import limit_sign, quantity_name
from lexray.text.vocabulary import ABOUT_THE_PAPER, PHYSICAL, terms
from lexray.version import __version__

ENGINE = "extractive"
#: Weight of a sentence's own worth against its likeness to what is already chosen.
MMR_LAMBDA = 0.7
#: Sentences more alike than this say the same.
MAX_SIMILARITY = 0.75
#: A sentence that is worth less than this share of the best one is left out, even where there is room for it.
MIN_RELATIVE_SCORE = 0.25
#: What a sentence gains for each kind of fact that it is the first to tell: class, variability, spectral shape.
COVERAGE_BONUS = 0.5
#: Only so many of the best sentences are compared with one another: whole papers hold thousands.
MAX_CANDIDATES = 200

_GENERAL_LABELS = frozenset({"star", "galaxy", "variable"})
_PAPER_IDENTIFIERS = ("bibcode", "arxiv", "title")

PaperRow = Mapping[str, Any]


@dataclass(frozen=True)
class Corpus:
    """In how many sources' papers each term occurs.

    Attributes
    ----------
    n_sources : int
    frequency : Counter
        Number of sources by term.
    """

    n_sources: int = 0
    frequency: Counter[str] = field(default_factory=Counter)
    _weights: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, sources: Collection[Sequence[PaperRow]]) -> "Corpus":
        """Count the papers of some sources."""
        of_each = (
            {term for paper in papers for text in paper_texts(paper) for term in terms(text)} for papers in sources
        )
        return cls(len(sources), Counter(itertools.chain.from_iterable(of_each)))

    def __add__(self, other: "Corpus") -> "Corpus":
        return Corpus(self.n_sources + other.n_sources, self.frequency + other.frequency)

    def weight(self, term: str) -> float:
        """Worth of a term in a sentence: greater for one of physics, and the fewer sources have it."""
        if term not in self._weights:
            rarity = 1.0 - math.log1p(self.frequency[term]) / math.log1p(max(self.n_sources, 1))
            physical = term in PHYSICAL or any(piece in PHYSICAL for piece in term.split("-"))
            self._weights[term] = 1.0 + 0.5 * rarity if physical else 0.2 * rarity
        return self._weights[term]


@dataclass(frozen=True)
class Sentence:
    """A sentence of a paper.

    Attributes
    ----------
    text : str
        Verbatim but for white space.
    paper : int
        Number of the paper among the source's.
    weights : dict
        Weight of each of its terms.
    score : float
    tells : frozenset of str
        Kinds of fact: 'object_class', 'variability', 'spectral_shape'.
    """

    text: str
    paper: int
    weights: dict[str, float]
    score: float
    tells: frozenset[LabelCategory] = frozenset()

    @property
    def n_words(self) -> int:
        return len(self.text.split())


@dataclass(frozen=True)
class ExtractiveSummarizer:
    """The engine.

    Attributes
    ----------
    corpus : Corpus
    max_words : int
        Length of a summary.
    mask_names : bool
        Hide names, coordinates and survey numbers in `summary`. `summary_unmasked` and the facts stay verbatim.
    min_grounded : float
        A row of which a smaller share is found in its papers is 'ungrounded'.
    """

    corpus: Corpus
    max_words: int = 150
    mask_names: bool = True
    min_grounded: float = 0.8

    def summarize(self, source_id: str, papers: Sequence[PaperRow]) -> dict[str, Any]:
        """One row of the `summaries` table.

        Parameters
        ----------
        source_id : str
            Masked, as are all `identifiers` of the papers.
        papers : sequence of mapping
            Rows of the `literature` table on this source.

        Returns
        -------
        dict
            `status` is 'failed' with `reason` 'no_sentences' where the papers hold no words on the source, 'too_long'
            where every sentence is longer than `max_words`.
        """
        papers = sort_papers(papers)
        row = {
            "source_id": source_id,
            "engine": ENGINE,
            "engine_version": __version__,
            "bibcodes": [],
            "n_papers": 0,
            "n_papers_left_out": len(papers),
            "status": "failed",
        }
        names = SourceNames.of(source_names(source_id, papers))
        evidence = [Evidence(sentences_about(paper, names)) for paper in papers]
        candidates = self.candidates([said.sentences for said in evidence])
        if not candidates:
            return row | {"reason": "no_sentences", "detail": "no sentence of its papers holds words on the source"}
        chosen = self.choose([sentence for sentence in candidates if sentence.n_words <= self.max_words])
        if not chosen:
            return row | {"reason": "too_long", "detail": f"every sentence is longer than {self.max_words} words"}
        text = " ".join(_with_full_stop(sentence.text) for sentence in chosen)
        masks = {paper: NameMask(names.in_paper(papers[paper])) for paper in {sentence.paper for sentence in chosen}}
        hidden = " ".join(masks[sentence.paper].mask(_with_full_stop(sentence.text)) for sentence in chosen)
        papers_used = sorted({sentence.paper for sentence in chosen})
        labels = majority_labels(sentence for said in evidence for sentence in said.sentences)
        quantities = _key_quantities(chosen)
        # The columns of a language model's row, and the sentences.
        facts: dict[str, Any] = {
            **{str(kind): label for kind, label in labels.items()},
            "key_quantities": [
                {"name": name, "value": value, "unit": unit}
                | {called: papers[paper][called] for called in ("bibcode", "arxiv")}
                for name, value, unit, paper in quantities
            ],
            "confidence": _confidence(labels["object_class"], evidence),
            # Not every paper has a bibcode: the number and the title make the sentence traceable all the same.
            "sentences": [
                {"text": sentence.text} | {name: papers[sentence.paper][name] for name in _PAPER_IDENTIFIERS}
                for sentence in chosen
            ],
        }
        grounding = ground_in_evidence(evidence, [sentence.text for sentence in chosen], labels, quantities)
        return row | {
            "summary": hidden if self.mask_names else text,
            "summary_unmasked": text,
            "facts": json.dumps(facts, ensure_ascii=False),
            "bibcodes": list(dict.fromkeys(code for paper in papers_used if (code := papers[paper]["bibcode"]))),
            "grounded": grounding.share,
            "findings": list(grounding.missing),
            "n_papers": len(papers_used),
            "n_papers_left_out": len(papers) - len(papers_used),
            "status": "ok" if grounding.share is None or grounding.share >= self.min_grounded else "ungrounded",
        }

    def candidates(self, papers: Sequence[Sequence[str]]) -> list[Sentence]:
        """Every sentence that holds words, scored, each text once; `papers` are the sentences of each."""
        found: dict[str, Sentence] = {}
        for number, sentences in enumerate(papers):
            for text in sentences:
                weights = {term: self.corpus.weight(term) for term in terms(text)}
                if weights and text not in found:
                    tells = frozenset(kind for kind, label in mentioned_labels(text) if label not in _GENERAL_LABELS)
                    found[text] = Sentence(text, number, weights, _score(text, weights), tells)
        return list(found.values())

    def choose(self, candidates: Sequence[Sentence]) -> list[Sentence]:
        """The sentences worth saying within `max_words`, in the order they were given in."""
        if not candidates:
            return []
        if len(candidates) > MAX_CANDIDATES:
            floor = sorted((sentence.score for sentence in candidates), reverse=True)[MAX_CANDIDATES - 1]
            candidates = [sentence for sentence in candidates if sentence.score >= floor][:MAX_CANDIDATES]
        best = max(sentence.score for sentence in candidates)
        similarity = _cosine_similarity(candidates)
        worth = np.array([sentence.score for sentence in candidates]) / best
        words = np.array([sentence.n_words for sentence in candidates])
        tells = np.array([[kind in sentence.tells for kind in LABEL_CATEGORIES] for sentence in candidates])
        uncovered = np.ones(len(LABEL_CATEGORIES), dtype=bool)
        open_ = worth >= MIN_RELATIVE_SCORE
        nearest = np.zeros(len(candidates))
        chosen: list[int] = []
        room = self.max_words
        while (open_ := open_ & (words <= room) & (nearest < MAX_SIMILARITY)).any():
            gain = worth + COVERAGE_BONUS * (tells & uncovered).sum(axis=1)
            relevance = np.where(open_, MMR_LAMBDA * gain - (1 - MMR_LAMBDA) * nearest, -np.inf)
            pick = int(np.argmax(relevance))  # of equals the first, so that runs agree
            chosen.append(pick)
            open_[pick] = False
            uncovered &= ~tells[pick]
            room -= int(words[pick])
            nearest = np.maximum(nearest, similarity[pick])
        return [candidates[i] for i in sorted(chosen)]


def papers_by_source(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Papers by source, sources in the order of their names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["source_id"], []).append(row)
    return dict(sorted(found.items()))


def sort_papers(papers: Iterable[PaperRow]) -> list[PaperRow]:
    """Papers by year, those without one last; ties by what they are called and say, never by how files were read."""

    def key(paper: PaperRow) -> tuple[Any, ...]:
        texts = (paper[name] or "" for name in ("bibcode", "arxiv", "title", "abstract", "body"))
        return paper["year"] is None, paper["year"] or 0, *texts

    return sorted(papers, key=key)


def source_names(source_id: str, papers: Iterable[PaperRow]) -> list[str]:
    """What a source is called here and, by the papers' rows, elsewhere; each name once."""
    others = (name for paper in papers for name in (*(paper.get("identifiers") or ()), paper.get("object")) if name)
    return list(dict.fromkeys([source_id, *others]))


def _score(text: str, weights: Mapping[str, float]) -> float:
    """Worth of a sentence: its terms and quantities, damped by its length so that a long one does not win by itself."""
    quantities = find_quantities(text)
    with_unit = sum(found.unit is not None for found in quantities)
    content = sum(weights.values()) + 1.5 * min(with_unit, 3) + 0.5 * min(len(quantities) - with_unit, 2)
    about_the_paper = 0.4 if ABOUT_THE_PAPER.search(text.lower()) else 1.0
    # A touch above 0, so that papers which say nothing still have a best sentence.
    return 1e-6 + about_the_paper * content / math.sqrt(max(len(text.split()), 8))


def _cosine_similarity(sentences: Sequence[Sentence]) -> np.ndarray:
    """f8[S, S]: cosine between the sentences' weighted terms."""
    vocabulary = {term: i for i, term in enumerate(sorted({t for s in sentences for t in s.weights}))}
    vectors = np.zeros((len(sentences), len(vocabulary)))
    for row, sentence in zip(vectors, sentences, strict=True):
        for term, weight in sentence.weights.items():
            row[vocabulary[term]] = weight
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1.0)
    return np.asarray(vectors @ vectors.T)


def _key_quantities(sentences: Sequence[Sentence]) -> list[tuple[str, str, str, int]]:
    """Name, number, unit and paper of the first measured values, one of each name."""
    found: dict[str, tuple[str, str, str, int]] = {}
    for sentence in sentences:
        for quantity in find_quantities(sentence.text):
            name = quantity_name(sentence.text, quantity)
            if name is not None:
                number = f"{limit_sign(sentence.text, quantity)}{quantity.value:.6g}"
                found.setdefault(name, (name, number, format_unit(quantity.unit), sentence.paper))
    return list(found.values())[:MAX_QUANTITIES]


def _confidence(label: str, evidence: Sequence[Evidence]) -> str:
    """'high' where several papers agree on the class, 'medium' where one says it, else 'low'."""
    if label == UNKNOWN:
        return "low"
    agreeing = (said for said in evidence if majority_labels(said.sentences)["object_class"] == label)
    agree = len(list(itertools.islice(agreeing, 2)))  # more would say no more
    return "high" if agree > 1 else "medium" if agree else "low"


def _with_full_stop(sentence: str) -> str:
    """A title ends without a full stop; in a running text it gets one."""
    return sentence if sentence.rstrip(")]}\"'”’")[-1:] in ".!?" else f"{sentence}."
