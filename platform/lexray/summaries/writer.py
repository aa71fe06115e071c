"""Write a source's summary with any language model: fill prompts, ask, merge, check against the papers, ask once more.

`Writer.prepare` is work for a CPU and runs before the model is needed; `Writer.write` only waits for answers, so that
one engine can work on any number of sources at once.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from pydantic import Field

from lexray.errors import ConfigError, LexrayError, RefusedInput
from lexray.literature.ranking import rank_papers
from lexray.llm.chat_model import Messages
from lexray.runtime.config import BaseConfig
from lexray.sources import stable_hash
from lexray.summaries.chunking import PromptPaper, TokenCounter, chunk_papers
from lexray.summaries.extractive import PaperRow, source_names
from lexray.summaries.prompts import MAX_FEEDBACK_CHARACTERS, PromptTemplates
from lexray.summaries.schema import MAX_CHARACTERS, MAX_TOKENS, Quantity, SourceSummary, parse_summary
from lexray.tables import delta
from lexray.text.designations import SourceNames
from lexray.text.grounding import Evidence, Grounding, ground_in_evidence, sentences_about
from lexray.text.labels import UNKNOWN, LabelCategory
from lexray.text.masking import NameMask
from lexray.text.prompt_injection import remove_prompt_injections
from lexray.text.sentences import normalise_whitespace, split_sentences

#: Papers that have labels: two digits are what the answer's schema takes.
MAX_PAPERS = 99
#: What a chat template adds to a prompt, in tokens; generous.
_CHAT_TEMPLATE_TOKENS = 64
#: Lowest sampling temperature where an earlier run failed.
_RETRY_TEMPERATURE = 0.5
#: Tokens of papers that are worth a prompt.
_MIN_PAPER_TOKENS = 256
_PROMPT_DELIMITERS = re.compile(r"</?\s*(?:papers|parts)\s*>|\[\s*(?:P|part\s*)\d+\s*\]", re.IGNORECASE)
_TEXTS = ("title", "abstract", "body")
#: Columns of a paper that its summary depends on; citation counts change and do not matter.
_HASHED_COLUMNS = (
    *_TEXTS,
    "bibcode",
    "arxiv",
    "year",
    "n_objects",
    "n_mentions",
    "object",
    "identifiers",
    "matched_by",
)


class WriterSettings(BaseConfig):
    """Length, masking and grounding of summaries, whichever engine writes them."""

    max_words: int = Field(150, ge=10, description="length of a summary")
    mask_names: bool = Field(
        True, description="take names, coordinates and survey numbers out of prompts and of what is embedded"
    )
    min_grounded: float = Field(
        0.8, ge=0, le=1, description="share of a summary's facts that its papers must hold; else it is flagged"
    )
    max_prompts: int = Field(8, ge=1, description="prompts that a source's papers may take; the rest is left out")
    temperature: float = Field(0.0, ge=0, description="of the sampling")
    seed: int = Field(0, description="of the sampling, with the source's name and the attempt")
    prompts: str | None = Field(None, description="folder with summary.md, merge.md and again.md; ours by default")


@dataclass(frozen=True)
class Completion:
    """An engine's answer: text, the tokens it read and wrote, and its name for the model, where it gives one."""

    text: str
    tokens_in: int
    tokens_out: int
    model: str = ""


@dataclass(frozen=True)
class PreviousRow:
    """Earlier runs' attempts at a source.

    Attributes
    ----------
    attempts : int
        Runs that failed.
    answered : bool
        Whether the last of them had an answer, which was rejected.
    """

    attempts: int = 0
    answered: bool = False


class ChatModel(Protocol):
    """A language model, wherever it runs; it enforces the answer's schema and length itself."""

    def count(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text."""

    async def complete(self, messages: Messages, seed: int, temperature: float) -> Completion:
        """The answer to a chat; raises `RefusedInput` if there is none."""


@dataclass(frozen=True)
class SummaryRequest:
    """All that a model needs to summarize a source.

    Attributes
    ----------
    source_id, key : str
    attempts : int
        Earlier runs that failed.
    prompts : list of str
        Papers of each prompt.
    papers : list of dict
        `bibcode` and `arxiv` of the papers, in the order of their labels: P1 is the first.
    evidence : list of list of str
        Sentences of each paper that speak of the source, unmasked.
    read : list of int
        Which of the papers are in the prompts, from 0.
    n_left_out : int
        Papers that are in none.
    names : list of str
        The source's.
    resample : bool
        Whether an earlier run's answer was rejected: at temperature 0 the same would come again.
    refusal : list of str or None
        Reason and detail where there is nothing to summarize.
    """

    source_id: str
    key: str
    attempts: int
    prompts: list[str]
    papers: list[dict[str, str | None]]
    evidence: list[list[str]]
    read: list[int]
    n_left_out: int
    names: list[str]
    resample: bool = False
    refusal: list[str] | None = None

    def dumps(self) -> str:
        """As JSON, which Arrow carries as it is; of a dictionary it would make columns."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "SummaryRequest":
        """From JSON."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Draft:
    """An answer, and what is wrong with it.

    Attributes
    ----------
    answer : SourceSummary
    grounding : Grounding
    too_long : str or None
        The complaint, if it has too many words.
    """

    answer: SourceSummary
    grounding: Grounding
    too_long: str | None

    @property
    def share(self) -> float:
        """Share of its facts that are in the papers; 1 where it states none."""
        return 1.0 if self.grounding.share is None else self.grounding.share


class Writer:
    """Writes summaries; the model is given with each request.

    Parameters
    ----------
    settings : WriterSettings
    provenance : mapping
        `engine`, `engine_version`, `model` and `revision` of every row.
    context : int
        Tokens that the model takes, its answer included.
    engine_options : mapping, optional
        Whatever else decides the answers, of the engine's own settings.

    Attributes
    ----------
    settings : WriterSettings
    provenance : dict
    prompt_sha256 : str
        Of the prompts' templates and the answer's schema.
    """

    def __init__(
        self,
        settings: WriterSettings,
        provenance: Mapping[str, str],
        context: int,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.provenance, self._context = settings, dict(provenance), context
        self._engine_options = dict(engine_options or {})
        self._prompts = PromptTemplates.read(settings.prompts)
        self.prompt_sha256 = self._prompts.sha256
        # The engine's version is left out: an update must not write all summaries again.
        engine = [self.provenance[name] for name in ("engine", "model", "revision")]
        self._settings_hash = delta.digest(
            [settings.model_dump(exclude={"prompts"}), self.prompt_sha256, engine, context, self._engine_options]
        )

    def check_context(self, count: TokenCounter) -> None:
        """Refuse a context that has no room for papers.

        Raises
        ------
        ConfigError
            If it is too small.
        """
        room = self._room(count)
        if room < _MIN_PAPER_TOKENS:
            raise ConfigError(
                f"context: {self._context} tokens leave {max(room, 0)} for papers, the answer takes up to {MAX_TOKENS} "
                f"and the prompt the rest; {self._context - room + _MIN_PAPER_TOKENS} are enough, of a model that "
                "takes them"
            )

    def key(self, source_id: str, papers: Sequence[PaperRow]) -> str:
        """Hash of all that a source's row depends on."""
        return delta.digest(
            [
                self._settings_hash,
                source_id,
                sorted(delta.digest([paper[name] for name in _HASHED_COLUMNS]) for paper in papers),
            ]
        )

    def prepare(
        self, source_id: str, key: str, papers: Sequence[PaperRow], previous: PreviousRow, count_tokens: TokenCounter
    ) -> SummaryRequest:
        """Rank, mask and pack a source's papers.

        Parameters
        ----------
        source_id, key : str
            The source, and its papers' hash, see `key`.
        papers : sequence of mapping
            Rows of `literature` on this source.
        previous : PreviousRow
        count_tokens : callable
            Tokens of texts, by the model's own tokenizer.
        """
        names = source_names(source_id, papers)
        known = SourceNames.of(names)
        ranked = rank_papers(papers, names)[:MAX_PAPERS]
        readings = [
            _prompt_paper(label, paper, NameMask(known.in_paper(paper)).mask if self.settings.mask_names else str)
            for label, paper in enumerate(ranked, start=1)
        ]
        packs = chunk_papers(readings, self._room(count_tokens), self.settings.max_prompts, count_tokens)
        read = sorted({number for one in packs for number in one.papers})
        refusal = None
        if not packs:
            anything = any(reading.sentences for reading in readings)
            detail = f"not one sentence fits into {self._context} tokens" if anything else "no paper holds a sentence"
            refusal = ["too_long" if anything else "no_sentences", detail]
        return SummaryRequest(
            source_id=source_id,
            key=key,
            attempts=previous.attempts,
            resample=previous.answered,
            prompts=[one.text for one in packs],
            papers=[{"bibcode": paper["bibcode"], "arxiv": paper["arxiv"]} for paper in ranked],
            evidence=[sentences_about(paper, known) if i in read else [] for i, paper in enumerate(ranked)],
            read=read,
            n_left_out=len(papers) - len(read),
            names=names,
            refusal=refusal,
        )

    async def write(self, request: SummaryRequest, model: ChatModel) -> dict[str, Any]:
        """A row of `summaries`; one that failed says why."""
        chat = _ChatSession(model, request, self.settings)
        evidence = [Evidence(tuple(sentences)) for sentences in request.evidence]
        row: dict[str, Any]
        try:
            if request.refusal is not None:
                raise RefusedInput(*request.refusal)
            draft = await self._better(request, evidence, chat, await self._draft(request, evidence, chat, ()))
            if draft.too_long:
                raise RefusedInput("too_many_words", draft.too_long)
            row = self._row_columns(request, evidence, draft)
        except RefusedInput as refused:
            row = {"status": "failed", "reason": refused.reason, "detail": refused.detail}
        except LexrayError:  # of the engine, not of this source
            raise
        except Exception as error:  # one source's error must not end the work on all others
            row = {"status": "failed", "reason": "internal_error", "detail": f"{type(error).__name__}: {error}"[:300]}
        return {
            **self.provenance,
            "revision": self.provenance["revision"] or chat.model_said,
            "source_id": request.source_id,
            "key": request.key,
            "attempts": request.attempts + 1,
            "n_papers": len(request.read),
            "n_papers_left_out": request.n_left_out,
            "bibcodes": [request.papers[i]["bibcode"] for i in request.read if request.papers[i]["bibcode"]],
            "sampling": json.dumps(
                {"temperature": chat.temperature, "seed": self.settings.seed, "max_tokens": MAX_TOKENS}
                | self._engine_options
            ),
            "prompt_sha256": self.prompt_sha256,
            "tokens_in": chat.tokens_in,
            "tokens_out": chat.tokens_out,
            **row,
        }

    async def _better(
        self, work: SummaryRequest, evidence: Sequence[Evidence], chat: "_ChatSession", first: Draft
    ) -> Draft:
        """The first draft if it is good enough, else the better of it and a second that is told what was wrong."""
        if not first.too_long and first.share >= self.settings.min_grounded:
            return first
        objections = [*([first.too_long] if first.too_long else ()), *first.grounding.missing]
        try:
            second = await self._draft(work, evidence, chat, objections)
        except RefusedInput:
            return first  # which is an answer after all
        return max(second, first, key=lambda draft: (draft.too_long is None, draft.share))

    async def _draft(
        self, work: SummaryRequest, evidence: Sequence[Evidence], chat: "_ChatSession", problems: Sequence[str]
    ) -> Draft:
        """One attempt: describe what each prompt holds, then join the descriptions until one is left."""
        ask = partial(self._prompts.messages, words=self.settings.max_words, problems=problems)
        answers = await asyncio.gather(*(chat(ask(self._prompts.summary, text)) for text in work.prompts))
        while len(answers) > 1:
            texts = [_without_delimiters(one.model_dump_json()) for one in answers]
            parts = [PromptPaper(f"[part {i}]", (text,)) for i, text in enumerate(texts, start=1)]
            packs = chunk_papers(parts, self._room(chat.model.count), len(parts), chat.model.count)
            if len(packs) == len(parts) or sum(len(one.papers) for one in packs) < len(parts):
                raise RefusedInput("too_long", f"not two partial summaries fit into {self._context} tokens")
            answers = await asyncio.gather(
                *(
                    chat(ask(self._prompts.merge, one.text))
                    if len(one.papers) > 1
                    else _passthrough(answers[one.papers[0]])
                    for one in packs
                )
            )
        answer, max_words = answers[0], self.settings.max_words
        # In a thread, so that the answers to other sources do not wait on the event loop.
        grounding = await asyncio.to_thread(_ground, evidence, answer.summary, answer.labels, answer.key_quantities)
        too_long = (
            f"the summary has {answer.words} words, and {max_words} are allowed" if answer.words > max_words else None
        )
        if len(answer.summary) == MAX_CHARACTERS:  # where the schema ended it, whatever it was about to say
            too_long = f"the summary has more than {MAX_CHARACTERS} characters"
        return Draft(answer, grounding, too_long)

    def _row_columns(self, work: SummaryRequest, evidence: Sequence[Evidence], draft: Draft) -> dict[str, Any]:
        """The draft's columns of the row: its labels and quantities, as far as the papers hold them."""
        answer = draft.answer
        labels = {
            name: label if _is_grounded(evidence, {name: label}, ()) else UNKNOWN
            for name, label in answer.labels.items()
        }
        quantities = [
            one.model_dump(exclude={"paper"}) | {name: work.papers[one.number][name] for name in ("bibcode", "arxiv")}
            for one in answer.key_quantities
            if one.number in work.read and _is_grounded(evidence, {}, (one,))
        ]
        mask = NameMask.of(work.names) if self.settings.mask_names else None
        return {
            "summary": mask.mask(answer.summary) if mask else answer.summary,
            "summary_unmasked": mask.reveal(answer.summary) if mask else answer.summary,
            "facts": json.dumps({**labels, "key_quantities": quantities, "confidence": answer.confidence}),
            "grounded": draft.grounding.share,
            "findings": list(draft.grounding.missing),
            "status": "ok" if draft.share >= self.settings.min_grounded else "ungrounded",
        }

    def _room(self, count: TokenCounter) -> int:
        """Tokens that are left for papers in either prompt."""
        longest = max(
            sum(count([message["content"] for message in self._prompts.messages(template, "", 999, [" "])]))
            for template in (self._prompts.summary, self._prompts.merge)
        )
        return (
            self._context - MAX_TOKENS - longest - MAX_FEEDBACK_CHARACTERS - _CHAT_TEMPLATE_TOKENS
        )  # a character is a token at most


class _ChatSession:
    """The chat about one source, with its token counts."""

    def __init__(self, model: ChatModel, work: SummaryRequest, settings: WriterSettings) -> None:
        self.model = model
        self.temperature = max(settings.temperature, _RETRY_TEMPERATURE) if work.resample else settings.temperature
        self.model_said = ""
        self.tokens_in = self.tokens_out = 0
        self._asked = 0
        self._salt = f"{settings.seed}/{work.attempts}/{work.source_id}"

    async def __call__(self, messages: Messages) -> SourceSummary:
        self._asked += 1
        seed = stable_hash(self._salt, self._asked) % 2**31
        completion = await self.model.complete(messages, seed, self.temperature)
        self.tokens_in += completion.tokens_in
        self.tokens_out += completion.tokens_out
        self.model_said = completion.model
        return parse_summary(completion.text)


def _prompt_paper(label: int, paper: PaperRow, mask: Callable[[str], str]) -> PromptPaper:
    """A paper as the model reads it: masked, and without prompt injections."""
    title, abstract, body = (remove_prompt_injections(normalise_whitespace(paper[name] or ""))[0] for name in _TEXTS)
    year = f" ({paper['year']})" if paper["year"] else ""
    sentences = tuple(
        _without_delimiters(mask(sentence)) for text in (abstract, body) for sentence in split_sentences(text)
    )
    head, title = f"[P{label}]{year}", _without_delimiters(mask(title))
    # A paper without an abstract has only its title.
    return (
        PromptPaper(f"{head} {title}".strip(), sentences) if sentences else PromptPaper(head, (title,) if title else ())
    )


def _without_delimiters(text: str) -> str:
    """Text without the marks that delimit data in a prompt."""
    return _PROMPT_DELIMITERS.sub(" ", text)


def _ground(
    evidence: Sequence[Evidence], summary: str, labels: Mapping[LabelCategory, str], quantities: Sequence[Quantity]
) -> Grounding:
    return ground_in_evidence(
        evidence, [summary], labels, [(one.name, one.value, one.unit, one.number) for one in quantities]
    )


def _is_grounded(
    evidence: Sequence[Evidence], labels: Mapping[LabelCategory, str], quantities: Sequence[Quantity]
) -> bool:
    return _ground(evidence, "", labels, quantities).share in (None, 1.0)


async def _passthrough(answer: SourceSummary) -> SourceSummary:
    return answer
