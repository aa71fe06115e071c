"""Summaries without a model: the most informative sentences of a source's papers, the same on every run.

A sentence scores by its physical words and its quantities; a word that recurs in the papers of many sources counts
little. Sentences are chosen by maximal marginal relevance (Carbonell & Goldstein 1998), so that each adds something,
and stand in the papers' order. None is cut.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lexray.schemas import SUMMARIES
from lexray.summaries.masking import mask_names
from lexray.summaries.sentences import normalise, split_sentences
from lexray.summaries.vocabulary import ABOUT_THE_PAPER, PHYSICAL, count_quantities, terms

ENGINE = "extractive"
#: Weight of a sentence's own worth against its likeness to what is already chosen.
MMR_LAMBDA = 0.7
#: Sentences more alike than this say the same.
SAME_CONTENT = 0.75
#: A sentence that is worth less than this share of the best one is left out, even where there is room for it.
WORTH_SAYING = 0.25
#: Only so many of the best sentences are compared with one another: whole papers hold thousands.
SHORTLIST = 200

_NAMES_OF_PAPER = ("bibcode", "arxiv", "title")

Paper = Mapping[str, Any]


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

    @classmethod
    def of(cls, sources: Iterable[Sequence[Paper]]) -> "Corpus":
        """Count the papers of some sources."""
        frequency: Counter[str] = Counter()
        n_sources = 0
        for papers in sources:
            n_sources += 1
            frequency.update({term for paper in papers for text in _texts(paper) for term in terms(text)})
        return cls(n_sources, frequency)

    def __add__(self, other: "Corpus") -> "Corpus":
        return Corpus(self.n_sources + other.n_sources, self.frequency + other.frequency)

    def rarity(self, term: str) -> float:
        """0 for a term of every source, 1 for one that no source has."""
        return 1.0 - math.log1p(self.frequency[term]) / math.log1p(max(self.n_sources, 1))


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
    """

    text: str
    paper: int
    weights: dict[str, float]
    score: float

    @property
    def n_words(self) -> int:
        return len(self.text.split())


@dataclass(frozen=True)
class Extractive:
    """The engine.

    Attributes
    ----------
    corpus : Corpus
    max_words : int
        Length of a summary.
    mask_names : bool
        Write 'the source' for the source's name in `summary`. The facts stay verbatim.
    """

    corpus: Corpus
    max_words: int = 150
    mask_names: bool = True

    def summarize(self, source_id: str, papers: Sequence[Paper]) -> dict[str, Any]:
        """One row of the `summaries` table.

        Parameters
        ----------
        source_id : str
            What is masked.
        papers : sequence of mapping
            Rows of the `literature` table on this source.

        Returns
        -------
        dict
            `status` is 'failed' with `reason` 'no_sentences' where the papers hold no words, 'too_long' where every
            sentence is longer than `max_words`.
        """
        papers = in_order(papers)
        row = {"source_id": source_id, "n_papers": len(papers), "engine": ENGINE, "bibcodes": [], "status": "failed"}
        candidates = self.candidates(papers)
        if not candidates:
            return row | {"reason": "no_sentences"}
        chosen = self.choose([sentence for sentence in candidates if sentence.n_words <= self.max_words])
        if not chosen:
            return row | {"reason": "too_long"}
        facts = [_fact(sentence, papers[sentence.paper]) for sentence in chosen]
        text = " ".join(_closed(sentence.text) for sentence in chosen)
        quoted = [papers[sentence.paper]["bibcode"] for sentence in chosen]
        return row | {
            "summary": mask_names(text, source_id) if self.mask_names else text,
            "facts": json.dumps({"sentences": facts}, ensure_ascii=False),
            "bibcodes": list(dict.fromkeys(bibcode for bibcode in quoted if bibcode)),
            "grounded": grounded(facts, papers),
            "status": "ok",
        }

    def candidates(self, papers: Sequence[Paper]) -> list[Sentence]:
        """Every sentence of the papers that holds words, scored; each text once."""
        found: dict[str, Sentence] = {}
        for number, paper in enumerate(papers):
            for text in (sentence for part in _texts(paper) for sentence in split_sentences(part)):
                weights = {term: self._weight(term) for term in terms(text)}
                if weights:
                    found.setdefault(text, Sentence(text, number, weights, _score(text, weights)))
        return list(found.values())

    def choose(self, candidates: Sequence[Sentence]) -> list[Sentence]:
        """The sentences worth saying within `max_words`, in the order they were given in."""
        if not candidates:
            return []
        if len(candidates) > SHORTLIST:
            floor = sorted((sentence.score for sentence in candidates), reverse=True)[SHORTLIST - 1]
            candidates = [sentence for sentence in candidates if sentence.score >= floor][:SHORTLIST]
        best = max(sentence.score for sentence in candidates)
        likeness = _likeness(candidates)
        worth = np.array([sentence.score for sentence in candidates]) / best
        words = np.array([sentence.n_words for sentence in candidates])
        open_ = worth >= WORTH_SAYING
        nearest = np.zeros(len(candidates))
        chosen: list[int] = []
        room = self.max_words
        while (open_ := open_ & (words <= room) & (nearest < SAME_CONTENT)).any():
            relevance = np.where(open_, MMR_LAMBDA * worth - (1 - MMR_LAMBDA) * nearest, -np.inf)
            pick = int(np.argmax(relevance))  # of equals the first, so that runs agree
            chosen.append(pick)
            open_[pick] = False
            room -= int(words[pick])
            nearest = np.maximum(nearest, likeness[pick])
        return [candidates[i] for i in sorted(chosen)]

    def _weight(self, term: str) -> float:
        rarity = self.corpus.rarity(term)
        physical = term in PHYSICAL or any(piece in PHYSICAL for piece in term.split("-"))
        return 1.0 + 0.5 * rarity if physical else 0.2 * rarity


def summarize_part(rows: pa.Table, engine: Extractive) -> pa.Table:
    """Rows of `summaries` for the sources of some rows of `literature`, in the order of their names."""
    summaries = [engine.summarize(source, papers) for source, papers in by_source(rows).items()]
    return pa.Table.from_pylist(summaries, schema=SUMMARIES)


def by_source(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Papers by source, sources in the order of their names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["source_id"], []).append(row)
    return dict(sorted(found.items()))


def in_order(papers: Iterable[Paper]) -> list[Paper]:
    """Papers by year, those without one last; ties by what they are called and say, never by how files were read."""

    def key(paper: Paper) -> tuple[Any, ...]:
        texts = (paper[name] or "" for name in ("bibcode", "arxiv", "title", "abstract", "body"))
        return paper["year"] is None, paper["year"] or 0, *texts

    return sorted(papers, key=key)


def grounded(facts: Sequence[Mapping[str, Any]], papers: Sequence[Paper]) -> float:
    """Share of the facts whose sentence stands word for word in the paper that it names."""
    found = 0
    for fact in facts:
        named = [paper for paper in papers if all(paper[name] == fact[name] for name in _NAMES_OF_PAPER)]
        found += any(fact["text"] in normalise(text) for paper in named for text in _texts(paper))
    return found / len(facts)


def _texts(paper: Paper) -> list[str]:
    return [text for text in (paper["title"], paper["abstract"], paper["body"]) if text]


def _score(text: str, weights: Mapping[str, float]) -> float:
    """Worth of a sentence: its terms and quantities, damped by its length so that a long one does not win by itself."""
    with_unit, without_unit = count_quantities(text)
    content = sum(weights.values()) + 1.5 * min(with_unit, 3) + 0.5 * min(without_unit, 2)
    about_the_paper = 0.4 if ABOUT_THE_PAPER.search(text) else 1.0
    # A touch above 0, so that papers which say nothing still have a best sentence.
    return 1e-6 + about_the_paper * content / math.sqrt(max(len(text.split()), 8))


def _likeness(sentences: Sequence[Sentence]) -> np.ndarray:
    """f8[S, S]: cosine between the sentences' weighted terms."""
    vocabulary = {term: i for i, term in enumerate(sorted({t for s in sentences for t in s.weights}))}
    vectors = np.zeros((len(sentences), len(vocabulary)))
    for row, sentence in zip(vectors, sentences, strict=True):
        for term, weight in sentence.weights.items():
            row[vocabulary[term]] = weight
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1.0)
    return np.asarray(vectors @ vectors.T)


def _fact(sentence: Sentence, paper: Paper) -> dict[str, Any]:
    # Not every paper has a bibcode: the number and the title make the sentence traceable all the same.
    return {"text": sentence.text} | {name: paper[name] for name in _NAMES_OF_PAPER}


def _closed(sentence: str) -> str:
    """A title ends without a full stop; in a running text it gets one."""
    return sentence if sentence.rstrip(")]}\"'”’")[-1:] in ".!?" else f"{sentence}."
