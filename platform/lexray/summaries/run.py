"""Summaries by language models on Ray Data: a summary of each source that lacks one, written as soon as it is finished.

The engine starts once for all that a source needs: its first answer, the merging of several, a second try. A row of the
dataset is a source, and the stage that holds the engine asks the model as often as the source needs.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.exceptions import RayError

from lexray.errors import RefusedInput
from lexray.llm import hub, vllm
from lexray.llm.chat_model import ChatTokenizer, LanguageModel, Messages
from lexray.llm.cost import cost_per_1000
from lexray.llm.openai import Endpoint, EndpointClient
from lexray.runtime.progress import Progress
from lexray.runtime.ray_internals import AskEngine, find_user_error
from lexray.summaries.chunking import TokenCounter
from lexray.summaries.extractive import papers_by_source
from lexray.summaries.schema import MAX_TOKENS, SCHEMA
from lexray.summaries.writer import ChatModel, Completion, PreviousRow, SummaryRequest, Writer
from lexray.tables import delta
from lexray.tables.row_checkpoints import RowCheckpoints, RowPlan, TableVersion
from lexray.tables.schemas import SUMMARIES

Row = dict[str, Any]
T = TypeVar("T")

#: The default backend's grammars let control characters into strings, and white space of any length between them.
_STRUCTURED_OUTPUTS = {"backend": "guidance", "disable_any_whitespace": True}
#: For models whose tokenizer is not here: English has four characters a token, numbers and LaTeX some two.
_CHARACTERS_PER_TOKEN = 2.5
#: Answers wait so many seconds at most until they are written: an engine that is killed loses no more.
_FLUSH_INTERVAL_S = 5.0
#: Arguments of vLLM's engine that change what it answers, and not only how fast.
_OUTPUT_ARGUMENTS = frozenset(
    {"dtype", "quantization", "kv_cache_dtype", "hf_overrides", "reasoning_parser", "speculative_config"}
)
#: Failures that are an answer's fault, not the engine's.
_REJECTED_REASONS = frozenset({"invalid_answer", "too_long", "too_many_words"})


@dataclass
class WritingStats:
    """What a run wrote, and what it cost.

    Attributes
    ----------
    n_sources, n_written : int
        Sources with papers, and those whose row this run wrote.
    tokens_in, tokens_out : int
    began, ended : float
        Unix time of the first question and of the last answer, s.
    """

    n_sources: int = 0
    n_written: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    began: float = float("inf")
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """Between the first question and the last answer, the engines' start excluded."""
        return max(self.ended - self.began, 0.0)

    def add(self, cost: Mapping[str, Any]) -> None:
        """Add a row's tokens and times."""
        self.tokens_in += cost["tokens_in"]
        self.tokens_out += cost["tokens_out"]
        self.began, self.ended = min(self.began, cost["began"]), max(self.ended, cost["ended"])

    def metrics(
        self, price_per_million_in: float | None, price_per_million_out: float | None, price_per_hour: float | None
    ) -> dict[str, float]:
        """Speed, and the cost of 1000 sources where a price is given, in its currency."""
        tokens = {"tokens_per_s": self.tokens_in + self.tokens_out, "tokens_out_per_s": self.tokens_out}
        return {
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "seconds": self.seconds,
            **{name: n / self.seconds for name, n in tokens.items() if self.seconds},
            **cost_per_1000(
                self.n_written,
                (price_per_million_in, self.tokens_in / 1e6),
                (price_per_million_out, self.tokens_out / 1e6),
                (price_per_hour, self.seconds / 3600),
            ),
        }


class SummaryEngine(Protocol):
    """Runs a writer's model on Ray Data."""

    @property
    def start_notice(self) -> str:
        """A line for a person who waits for the engine to start; empty where it starts at once."""

    def counter(self) -> TokenCounter:
        """The function that counts a text's tokens, for the processes that prepare sources."""

    def apply(self, requests: "ray.data.Dataset", writer: Writer, store: RowCheckpoints) -> "ray.data.Dataset":
        """Write a row of each request {part, request}; gives what each cost: {tokens_in, tokens_out, began, ended}."""

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Turn an error that ends the work into one line."""


@dataclass(frozen=True)
class VllmSummaryEngine:
    """vLLM through the processor of `ray.data.llm`.

    Attributes
    ----------
    model : LanguageModel
    settings : vllm.VllmSettings
    context : int
        Tokens that a prompt and its answer may have.
    """

    model: LanguageModel
    settings: vllm.VllmSettings
    context: int

    @property
    def provenance(self) -> dict[str, str]:
        """Engine and model, as the rows name them."""
        return {
            "engine": "vllm",
            "engine_version": vllm.version(),
            "model": self.model.name,
            "revision": self.model.revision,
        }

    @property
    def output_arguments(self) -> dict[str, Any]:
        """Arguments of the engine that change what it answers."""
        return {name: value for name, value in self.settings.extra.items() if name in _OUTPUT_ARGUMENTS}

    @property
    def start_notice(self) -> str:
        """See `SummaryEngine`."""
        return vllm.start_notice(self.model.name, self.settings)

    def counter(self) -> TokenCounter:
        """The model's own tokenizer."""
        return _tokenizer(self.model).count

    def apply(self, requests: "ray.data.Dataset", writer: Writer, store: RowCheckpoints) -> "ray.data.Dataset":
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
        make = functools.partial(_VllmWorker, model=self.model, writer=writer, store=store)
        return vllm.build(self.model.source, "generate", self.settings, engine, _request, _cost, make)(requests)

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
        Processes that send requests, each within the endpoint's limits.
    batch_size : int
        Sources that each of them works on at a time.
    tokenizer : LanguageModel or None
        The model whose tokenizer counts tokens; else their number is estimated from a text's length.
    """

    endpoint: Endpoint
    replicas: int
    batch_size: int
    tokenizer: LanguageModel | None = None
    start_notice = ""

    def counter(self) -> TokenCounter:
        """The model's own tokenizer where it is known."""
        return _estimate_tokens if self.tokenizer is None else _tokenizer(self.tokenizer).count

    def apply(self, requests: "ray.data.Dataset", writer: Writer, store: RowCheckpoints) -> "ray.data.Dataset":
        """See `SummaryEngine`."""
        return requests.map_batches(
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
    """Provenance of the rows that an endpoint writes.

    Raises
    ------
    LexrayError
        If it cannot be reached, or refuses the key.
    """

    async def ask() -> str:
        async with EndpointClient(endpoint) as client:
            return await client.engine()

    return {"engine": "http", "engine_version": asyncio.run(ask()), "model": endpoint.model, "revision": ""}


def write_missing(
    literature: str, out: str, writer: Writer, engine: SummaryEngine, force: bool, progress: Progress
) -> WritingStats:
    """Write a summary of each source that lacks one, and commit the table of all of them.

    Parameters
    ----------
    literature, out : str
        Tables.
    writer : Writer
    engine : SummaryEngine
    force : bool
        Write all summaries anew.
    progress : Progress

    Raises
    ------
    LexrayError
        If the engine does not start, or ends in the middle of the work. What was finished is kept.
    """
    plan = RowPlan(
        PapersOfSources(literature, delta.version(literature)),
        writer.key,
        RowCheckpoints(out, SUMMARIES),
        force,
        _on_ray,
    )
    if force:
        plan.rows.remove()
    parts = plan.progress()
    stats = WritingStats(
        n_sources=sum(part.rows for part in parts.values()), n_written=sum(part.missing for part in parts.values())
    )
    if stats.n_written:
        if engine.start_notice:
            progress.info(engine.start_notice)
        unfinished = [part for part, of_part in parts.items() if of_part.missing]
        with progress.task("sources", total=stats.n_written) as task, engine.errors():
            for cost in engine.apply(_requests(plan, unfinished, writer, engine), writer, plan.rows).iter_rows():
                stats.add(cost)
                task.advance()
    plan.commit("summaries")
    return stats


@dataclass(frozen=True)
class PapersOfSources(TableVersion):
    """One version of a literature table as `RowInputs`: rows of papers by source."""

    def count(self, part: int) -> int:
        """Sources of a part."""
        rows = self._dataset.to_table(["source_id"], filter=pc.field("part") == part)
        return int(pc.count_distinct(rows["source_id"]).as_py())

    def read(self, part: int, sources: Collection[str] | None = None) -> dict[str, list[Row]]:
        """Papers of each source of a part, sources in the order of their names; by default of all."""
        of_part = pc.field("part") == part
        wanted = of_part if sources is None else of_part & pc.field("source_id").isin(pa.array(sources, pa.string()))
        return papers_by_source(self._dataset.to_table(filter=wanted))


def _requests(
    plan: RowPlan[list[Row]], parts: Sequence[int], writer: Writer, engine: SummaryEngine
) -> "ray.data.Dataset":
    """A row {part, request} of each source that some parts lack."""

    def prepare(row: Row) -> Iterator[Row]:
        count = engine.counter()
        for missing in plan.missing(row["part"]):
            previous = PreviousRow(
                missing.failed.get("attempts") or 0, missing.failed.get("reason") in _REJECTED_REASONS
            )
            request = writer.prepare(missing.source_id, missing.key, missing.made_from, previous, count)
            yield {"part": missing.part, "request": request.dumps()}

    return ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).flat_map(prepare)


def _on_ray(function: Callable[[int], T], parts: Sequence[int]) -> list[T]:
    """Apply a function to each part, one Ray task each; the results come in the parts' order."""
    task = ray.remote(function)
    results: list[T] = ray.get([task.remote(part) for part in parts])
    return results


class _RowWriter:
    """Writes rows to checkpoints as they are finished, some at a time; for one event loop."""

    def __init__(self, store: RowCheckpoints) -> None:
        self._store = store
        self._rows: dict[int, list[Row]] = {}
        self._last = time.monotonic()
        self._flushing = asyncio.Lock()
        #: A worker that takes the place of a dead one gets its sources again, and skips what that one had finished.
        self._restarted = ray.get_runtime_context().was_current_actor_reconstructed

    def already_finished(self, parts: set[int]) -> dict[str, Row]:
        """Tokens of the rows of these parts that a worker had finished before it died, by key."""
        if not self._restarted:
            return {}
        columns = ("key", "status", "tokens_in", "tokens_out")
        known = pa.concat_tables(self._store.finished(part, columns) for part in parts)
        return {row["key"]: row for row in known.to_pylist() if row["status"] != "failed"}

    async def add(self, part: int, row: Row) -> None:
        self._rows.setdefault(part, []).append(row)
        if time.monotonic() - self._last > _FLUSH_INTERVAL_S:
            await self.flush()

    async def flush(self) -> None:
        """When this returns, all rows that were added before are written, whichever task wrote them."""
        async with self._flushing:
            self._last = time.monotonic()
            for part in list(self._rows):
                mine = self._rows.pop(part)
                try:
                    await asyncio.to_thread(self._store.write, part, pa.Table.from_pylist(mine, schema=SUMMARIES))
                except BaseException:
                    self._rows[part] = mine + self._rows.get(part, [])
                    raise


async def _write(sources: Sequence[Row], writer: Writer, model: ChatModel, row_writer: _RowWriter) -> list[Row]:
    """Write the rows of some sources, all at once, each as soon as it is finished; returns what each cost."""
    finished = row_writer.already_finished({source["part"] for source in sources})

    async def one(source: Row) -> Row:
        began, request = time.time(), SummaryRequest.loads(source["request"])
        row = finished.get(request.key)
        if row is None:
            row = await writer.write(request, model)
            await row_writer.add(source["part"], row)
        return {"tokens_in": row["tokens_in"], "tokens_out": row["tokens_out"], "began": began, "ended": time.time()}

    costs = await asyncio.gather(*map(one, sources), return_exceptions=True)
    await row_writer.flush()  # also where one of them failed: the others are finished
    for cost in costs:
        if isinstance(cost, BaseException):
            raise cost
    return [cost for cost in costs if not isinstance(cost, BaseException)]


@functools.lru_cache(maxsize=1)
def _tokenizer(model: LanguageModel) -> ChatTokenizer:
    """The model's tokenizer from this machine's cache, loaded once a process."""
    revision = model.revision if model.on_hub else None
    return ChatTokenizer(str(hub.locate(model.source, hub.SETTINGS_FILES, revision)[0]))


def _estimate_tokens(texts: Sequence[str]) -> list[int]:
    return [int(len(text) / _CHARACTERS_PER_TOKEN) + 1 for text in texts]


def _request(_: Row) -> Row:
    return {"sampling_params": ""}  # the stage requires the key; ours are made with each question


def _cost(row: Row) -> Row:
    return {name: row[name] for name in ("tokens_in", "tokens_out", "began", "ended")}


class _VllmWorker:
    """Summarizes the sources of a batch with an engine's model, of which it is the `ChatModel`."""

    def __init__(self, ask: AskEngine, model: LanguageModel, writer: Writer, store: RowCheckpoints) -> None:
        self._ask, self._writer, self._row_writer = ask, writer, _RowWriter(store)
        self._tokens = _tokenizer(model)
        self.count = self._tokens.count

    async def __call__(self, batch: list[Row]) -> list[Row]:
        return await _write(batch, self._writer, self, self._row_writer)

    async def complete(self, messages: Messages, seed: int, temperature: float) -> Completion:
        prompt = await asyncio.to_thread(self._tokens.chat, messages)
        sampling = {
            "temperature": temperature,
            "seed": seed,
            "max_tokens": MAX_TOKENS,
            "structured_outputs": {"json": SCHEMA},
        }
        answer = await self._ask({"tokenized_prompt": prompt, "sampling_params": sampling})
        if answer["__inference_error__"]:
            raise RefusedInput("engine_error", " ".join(answer["__inference_error__"].split())[:300])
        if answer["num_generated_tokens"] >= MAX_TOKENS:
            raise RefusedInput("too_long", f"the answer has more than {MAX_TOKENS} tokens")
        return Completion(answer["generated_text"], answer["num_input_tokens"], answer["num_generated_tokens"])


class _EndpointWorker:
    """Summarizes the sources of a batch with an endpoint's model, of which it is the `ChatModel`."""

    def __init__(self, engine: HttpSummaryEngine, writer: Writer, store: RowCheckpoints) -> None:
        self._writer, self._row_writer = writer, _RowWriter(store)
        self._client, self.count = EndpointClient(engine.endpoint), engine.counter()

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        yield pa.Table.from_pylist(await _write(batch.to_pylist(), self._writer, self, self._row_writer))

    async def complete(self, messages: Messages, seed: int, temperature: float) -> Completion:
        answer = await self._client.chat(
            messages, max_tokens=MAX_TOKENS, schema=SCHEMA, temperature=temperature, seed=seed
        )
        if answer.finish_reason == "length":
            raise RefusedInput("too_long", f"the answer was cut off after {answer.tokens_out} tokens")
        return Completion(answer.text, answer.tokens_in, answer.tokens_out, answer.model)
