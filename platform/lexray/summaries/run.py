"""Summaries by language models on Ray Data: sources that lack one are read, asked for, and kept as they come.

One engine start serves all that a source needs, its first answer, merging and a second try: what travels through Ray
Data is a source, and the stage that holds the engine asks as often as the source takes.
"""

import asyncio
import contextlib
import functools
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from lexray.errors import RefusedInput, find_user_error
from lexray.llm import hub, vllm
from lexray.llm.chat_model import ChatTokenizer, LanguageModel, Messages
from lexray.llm.openai import Endpoint, EndpointClient
from lexray.runtime.progress import ProgressTask
from lexray.summaries.chunking import TokenCounter
from lexray.summaries.extractive import papers_by_source
from lexray.summaries.schema import MAX_TOKENS, SCHEMA
from lexray.summaries.writer import ChatModel, Completion, PreviousRow, SummaryRequest, Writer
from lexray.tables import delta
from lexray.tables.delta import Fragment
from lexray.tables.row_checkpoints import RowCheckpoints
from lexray.tables.schemas import SUMMARIES

Row = dict[str, Any]

#: The default backend's grammars let control characters into strings, and white space of any length between them.
_STRUCTURED_OUTPUTS = {"backend": "guidance", "disable_any_whitespace": True}
#: For models whose tokenizer is not here: English has four characters a token, numbers and LaTeX some two.
_CHARACTERS_PER_TOKEN = 2.5
#: An engine that is killed loses at most the answers of so many seconds.
_FLUSH_INTERVAL_S = 5.0
#: Failures that an answer was the reason of.
_REJECTED_REASONS = frozenset({"invalid_answer", "too_long", "too_many_words"})


@dataclass(frozen=True)
class SummaryProgress:
    """What a part lacks.

    Attributes
    ----------
    sources, lacking : int
        Sources with papers, and those among them without a finished row.
    """

    sources: int
    lacking: int


@dataclass
class WritingStats:
    """What engines did.

    Attributes
    ----------
    tokens_in, tokens_out : int
    began, ended : float
        Unix time of the first question and of the last answer, s.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    began: float = float("inf")
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """Between the first question and the last answer, the engines' start excluded."""
        return max(self.ended - self.began, 0.0)


class SummaryEngine(Protocol):
    """Runs a writer's model on Ray Data."""

    def counter(self) -> TokenCounter:
        """How texts are counted, in the processes that prepare sources."""

    def apply(self, requests: "ray.data.Dataset", writer: Writer, store: RowCheckpoints) -> "ray.data.Dataset":
        """Dataset of {part, work} → dataset of what each cost: {tokens_in, tokens_out, began, ended}; rows are kept."""

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Says in one line what ended the work."""


@dataclass(frozen=True)
class VllmSummaryEngine:
    """vLLM through the processor of `ray.data.llm`.

    Attributes
    ----------
    model : LanguageModel
    settings : vllm.EngineSettings
    context : int
        Tokens that a prompt and its answer may have.
    """

    model: LanguageModel
    settings: vllm.VllmSettings
    context: int

    def counter(self) -> TokenCounter:
        """The model's own tokenizer."""
        return _tokenizer(self.model).count

    def apply(self, works: "ray.data.Dataset", writer: Writer, store: RowCheckpoints) -> "ray.data.Dataset":
        """See `SummaryEngine`."""
        engine: Row = {
            "max_model_len": self.context,
            "structured_outputs_config": _STRUCTURED_OUTPUTS,
            "enable_prefix_caching": True,  # all prompts begin alike
        }
        if not self.settings.gpu:
            # A prompt that is read in pieces makes vLLM 0.29 turn back the request's generator, which no generator of
            # torch's on a CPU can: the engine dies ("CPU Generator does not use offset").
            engine |= {"enable_chunked_prefill": False, "max_num_batched_tokens": self.context}
        if self.model.on_hub:
            engine |= {"revision": self.model.revision, "tokenizer_revision": self.model.revision}
        stage = functools.partial(_summary_stage, writer=writer, store=store, model=self.model)
        processor = vllm.build(self.model.source, "generate", self.settings, engine, _request, _cost, stage)
        return processor(works)

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """See `SummaryEngine`."""
        return vllm.one_line_errors(self.model.name)


@dataclass(frozen=True)
class HttpSummaryEngine:
    """An endpoint with an API like OpenAI's.

    Attributes
    ----------
    endpoint : Endpoint
    replicas : int
        Processes that ask, each with the endpoint's limits.
    batch_size : int
        Sources under way at a time in each of them.
    tokenizer : LanguageModel or None
        Where texts are to be counted with the model's own; else they are estimated by their length.
    """

    endpoint: Endpoint
    replicas: int
    batch_size: int
    tokenizer: LanguageModel | None = None

    def counter(self) -> TokenCounter:
        """The model's own tokenizer where it is known."""
        return _estimate_tokens if self.tokenizer is None else _tokenizer(self.tokenizer).count

    def apply(self, works: "ray.data.Dataset", writer: Writer, store: RowCheckpoints) -> "ray.data.Dataset":
        """See `SummaryEngine`."""
        return works.map_batches(
            _EndpointWorker,
            fn_constructor_args=(self, writer, store),
            batch_format="pyarrow",
            batch_size=self.batch_size,
            compute=ray.data.ActorPoolStrategy(size=self.replicas),
            max_concurrency=2,  # while the last answers of a batch are awaited the next one is under way
            num_cpus=1,
        )

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """See `SummaryEngine`."""
        with vllm.silence_ray_data():
            try:
                yield
            except RayError as error:
                raise find_user_error(error) or error from None


def describe_endpoint(endpoint: Endpoint) -> dict[str, str]:
    """Provenance of what an endpoint writes.

    Raises
    ------
    LexrayError
        If it cannot be reached, or refuses the key.
    """

    async def ask() -> str:
        async with EndpointClient(endpoint) as client:
            return await client.engine()

    return {"engine": "http", "engine_version": asyncio.run(ask()), "model": endpoint.model, "revision": ""}


def part_progress(literature: str, out: str, writer: Writer, *, force: bool) -> dict[int, SummaryProgress]:
    """What each part lacks.

    Parameters
    ----------
    literature, out : str
        Tables.
    writer : Writer
        Whose rows count as finished.
    force : bool
        No row does.
    """

    def look(row: Row) -> Row:
        papers = _papers(literature, row["part"])
        unfinished = _unfinished(RowCheckpoints(out, SUMMARIES), row["part"], papers, writer, afresh=force)
        return {"part": row["part"], "sources": len(papers), "lacking": len(unfinished)}

    looked = _part_dataset(list(delta.part_files(literature))).map(look).take_all()
    return {row["part"]: SummaryProgress(row["sources"], row["lacking"]) for row in looked}


def summarize(
    literature: str,
    out: str,
    parts: list[int],
    writer: Writer,
    engine: SummaryEngine,
    task: ProgressTask,
    *,
    afresh: bool,
) -> WritingStats:
    """Write rows of the sources of some parts that lack one; they are kept at once, and seen after `gather`.

    Parameters
    ----------
    literature, out : str
        Tables.
    parts : list of int
        Those that `part_progress` says lack some.
    writer : Writer
    engine : WritingEngine
    task : Task
        Advanced by the rows.
    afresh : bool
        No row counts as finished.

    Raises
    ------
    LexrayError
        If the engine does not start, or ends in the middle of the work. What was finished is kept.
    """

    store = RowCheckpoints(out, SUMMARIES)

    def works(row: Row) -> Iterator[Row]:
        papers = _papers(literature, row["part"])
        count = engine.counter()
        for source, earlier in _unfinished(store, row["part"], papers, writer, afresh=afresh).items():
            yield {"part": row["part"], "work": writer.prepare(source, papers[source], earlier, count).dumps()}

    stats = WritingStats()
    with engine.errors():
        for cost in engine.apply(_part_dataset(parts).flat_map(works), writer, store).iter_rows():
            stats.tokens_in += cost["tokens_in"]
            stats.tokens_out += cost["tokens_out"]
            stats.began, stats.ended = min(stats.began, cost["began"]), max(stats.ended, cost["ended"])
            task.advance()
    return stats


def gather(literature: str, out: str, writer: Writer) -> list[Fragment]:
    """One file a part of all rows that are finished, for `delta.commit`."""

    def join(row: Row) -> Row:
        keys = _keys(_papers(literature, row["part"]), writer)
        return asdict(RowCheckpoints(out, SUMMARIES).gather(row["part"], keys))

    joined = _part_dataset(list(delta.part_files(literature))).map(join)
    return [Fragment(**row) for row in joined.take_all()]


def _part_dataset(parts: list[int]) -> "ray.data.Dataset":
    return ray.data.from_items([{"part": part} for part in parts], override_num_blocks=max(len(parts), 1))


def _papers(literature: str, part: int) -> dict[str, list[Row]]:
    return papers_by_source(delta.read(literature, parts=[part]))


def _keys(papers: Mapping[str, list[Row]], writer: Writer) -> dict[str, str]:
    return {source: writer.key(source, found) for source, found in papers.items()}


def _unfinished(
    store: RowCheckpoints, part: int, papers: Mapping[str, list[Row]], writer: Writer, *, afresh: bool
) -> dict[str, PreviousRow]:
    """Sources that no run has finished, with what became of them so far; `afresh` all of them."""
    unfinished = dict.fromkeys(papers, PreviousRow())
    if afresh:
        return unfinished
    keys = _keys(papers, writer)
    for row in store.finished(part, ("source_id", "key", "status", "attempts", "reason")).to_pylist():
        source = row["source_id"]
        if keys.get(source) != row["key"]:
            continue
        if row["status"] != "failed":
            unfinished.pop(source, None)
        elif source in unfinished:
            unfinished[source] = PreviousRow(row["attempts"] or 0, row["reason"] in _REJECTED_REASONS)
    return unfinished


class _RowWriter:
    """Keeps rows as they are finished, some at a time; for one event loop."""

    def __init__(self, store: RowCheckpoints) -> None:
        self._store = store
        self._rows: dict[int, list[Row]] = {}
        self._last = time.monotonic()
        self._flushing = asyncio.Lock()
        #: Where this worker has died before, its work is done again: what it had finished is not.
        self._again = ray.get_runtime_context().was_current_actor_reconstructed

    def kept(self, parts: set[int]) -> dict[str, Row]:
        """By key, the tokens of rows that a worker which died in the midst of these parts had finished."""
        if not self._again:
            return {}
        columns = ("key", "status", "tokens_in", "tokens_out")
        known = pa.concat_tables(self._store.finished(part, columns) for part in parts)
        return {row["key"]: row for row in known.to_pylist() if row["status"] != "failed"}

    async def add(self, part: int, row: Row) -> None:
        self._rows.setdefault(part, []).append(row)
        if time.monotonic() - self._last > _FLUSH_INTERVAL_S:
            await self.flush()

    async def flush(self) -> None:
        """All rows that were added before are kept when this returns, whoever wrote them."""
        async with self._flushing:
            self._last = time.monotonic()
            for part in list(self._rows):
                mine = self._rows.pop(part)
                try:
                    await asyncio.to_thread(self._store.note, part, pa.Table.from_pylist(mine, schema=SUMMARIES))
                except BaseException:
                    self._rows[part] = mine + self._rows.get(part, [])
                    raise


async def _write(sources: Sequence[Row], writer: Writer, model: ChatModel, row_writer: _RowWriter) -> list[Row]:
    """Rows of some sources, all asked for at once and kept as they are finished; what each cost."""

    kept = row_writer.kept({source["part"] for source in sources})

    async def one(source: Row) -> Row:
        began, work = time.time(), SummaryRequest.loads(source["work"])
        row = kept.get(work.key)
        if row is None:
            row = await writer.write(work, model)
            await row_writer.add(source["part"], row)
        return {"tokens_in": row["tokens_in"], "tokens_out": row["tokens_out"], "began": began, "ended": time.time()}

    costs = await asyncio.gather(*map(one, sources), return_exceptions=True)
    await row_writer.flush()  # also where one of them ended the work: the others are finished
    for cost in costs:
        if isinstance(cost, BaseException):
            raise cost
    return [cost for cost in costs if not isinstance(cost, BaseException)]


@functools.lru_cache(maxsize=1)
def _tokenizer(model: LanguageModel) -> ChatTokenizer:
    """Loaded once a process, from where this machine has it."""
    revision = model.revision if model.on_hub else None
    return ChatTokenizer(str(hub.locate(model.source, hub.SETTINGS_FILES, revision)[0]))


def _estimate_tokens(texts: Sequence[str]) -> list[int]:
    return [int(len(text) / _CHARACTERS_PER_TOKEN) + 1 for text in texts]


def _request(_: Row) -> Row:
    return {"sampling_params": ""}  # the stage asks for the key; ours are made with each question


def _cost(row: Row) -> Row:
    return {name: row[name] for name in ("tokens_in", "tokens_out", "began", "ended")}


class _VllmModel:
    """The engine of a stage as a `ChatModel`."""

    def __init__(self, stage: Any, tokens: ChatTokenizer) -> None:
        self._stage, self._tokens = stage, tokens
        self.count = tokens.count

    async def complete(self, messages: Messages, seed: int, temperature: float) -> Completion:
        prompt = await asyncio.to_thread(self._tokens.chat, messages)
        question = {
            self._stage.IDX_IN_BATCH_COLUMN: 0,
            "tokenized_prompt": prompt,
            "sampling_params": {
                "temperature": temperature,
                "seed": seed,
                "max_tokens": MAX_TOKENS,
                "structured_outputs": {"json": SCHEMA},
            },
        }
        # Ray's own: where the engine is dead it ends this worker, so that Ray starts another and asks again there.
        answer = await self._stage._generate_with_error_handling(question, uuid.uuid4())
        if answer["__inference_error__"]:
            raise RefusedInput("engine_error", " ".join(answer["__inference_error__"].split())[:300])
        if answer["num_generated_tokens"] >= MAX_TOKENS:
            raise RefusedInput("too_long", f"the answer has more than {MAX_TOKENS} tokens")
        return Completion(answer["generated_text"], answer["num_input_tokens"], answer["num_generated_tokens"])


def _summary_stage(engine: type[Any], writer: Writer, store: RowCheckpoints, model: LanguageModel) -> type[Any]:
    """The engine's stage, but a row of it is a source."""

    class WritingEngine(engine):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._asked = _VllmModel(self, _tokenizer(model))
            self._keeper = _RowWriter(store)

        async def udf(self, batch: list[Row]) -> AsyncIterator[Row]:
            costs = await _write(batch, writer, self._asked, self._keeper)
            for row, cost in zip(batch, costs, strict=True):
                yield {self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN], **cost}

    return WritingEngine


class _EndpointModel:
    """An endpoint as a `ChatModel`."""

    def __init__(self, client: EndpointClient, count: TokenCounter) -> None:
        self._client, self.count = client, count

    async def complete(self, messages: Messages, seed: int, temperature: float) -> Completion:
        answer = await self._client.chat(
            messages, max_tokens=MAX_TOKENS, schema=SCHEMA, temperature=temperature, seed=seed
        )
        if answer.finish_reason == "length":
            raise RefusedInput("too_long", f"the answer was cut off after {answer.tokens_out} tokens")
        return Completion(answer.text, answer.tokens_in, answer.tokens_out, answer.model)


class _EndpointWorker:
    """Sources of a batch, put to an endpoint."""

    def __init__(self, engine: HttpSummaryEngine, writer: Writer, store: RowCheckpoints) -> None:
        self._writer, self._keeper = writer, _RowWriter(store)
        self._model = _EndpointModel(EndpointClient(engine.endpoint), engine.counter())

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        yield pa.Table.from_pylist(await _write(batch.to_pylist(), self._writer, self._model, self._keeper))
