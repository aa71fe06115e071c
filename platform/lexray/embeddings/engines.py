"""Engines that embed texts without Ray: sentence-transformers in this process, and models behind an API.

The third, vLLM on Ray Data, is `lexray.embeddings.vllm_engine`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Protocol, TypeVar

from lexray.embeddings.store import (
    BatchResult,
    EmbeddingSpec,
    EmbeddingWriter,
    Provenance,
)
from lexray.errors import LexrayError, RefusedInput, one_line
from lexray.llm.openai import Endpoint, EndpointClient
from lexray.llm.sentence_encoder import TextEncoder, TextModel
from lexray.tables import delta
from lexray.tables.quarantine import Refusal
from lexray.tables.row_checkpoints import MissingRow, RowPlan

T = TypeVar("T")
#: An endpoint embeds this first: the answer says how long its vectors are, and which model computes them.
_PROBE_TEXT = "an X-ray source"


class EmbeddingEngine(Protocol):
    """Embeds texts.

    Attributes
    ----------
    spec : EmbeddingSpec
        Known before a model is loaded.
    """

    spec: EmbeddingSpec

    @property
    def max_length(self) -> int | None:
        """Tokens of a text that are read; None where the engine does not say."""

    @property
    def provenance(self) -> Provenance:
        """Engine and model, as the rows name them."""

    @property
    def dimension(self) -> int:
        """Length of the vectors, T."""

    def embed(self, plan: RowPlan[str], parts: Sequence[int]) -> Iterator[BatchResult]:
        """Embed the texts of some parts that lack a vector, and write the vectors, batch by batch.

        Raises
        ------
        LexrayError
            If the engine cannot start, or cannot go on. What is written stays.
        """


def embedding_spec(model: TextModel) -> EmbeddingSpec:
    """The `EmbeddingSpec` of a model on disk."""
    return EmbeddingSpec(model.name, model.document_prefix, delta.digest([model.fingerprint, model.max_length]))


class HfEmbeddingEngine:
    """sentence-transformers in this process.

    Parameters
    ----------
    model : TextModel
    device : str or None
        'cpu', 'cuda'; None takes a GPU where there is one.
    batch_size : int
        Texts that the model reads at once.
    """

    def __init__(self, model: TextModel, device: str | None, batch_size: int) -> None:
        self.spec, self.dimension, self.max_length = embedding_spec(model), model.dimension, model.max_length
        self.provenance = Provenance(
            "hf", f"sentence-transformers {version('sentence-transformers')}", model.name, model.revision
        )
        self._model, self._device, self._batch_size = model, device, batch_size

    def embed(self, plan: RowPlan[str], parts: Sequence[int]) -> Iterator[BatchResult]:
        """As `EmbeddingEngine.embed`."""
        encoder = TextEncoder(self._model, self._device)
        writer = EmbeddingWriter(plan.rows, self.provenance)
        for texts in _batches(plan, parts, self._batch_size):
            yield self._embed(encoder, writer, texts)

    def _embed(self, encoder: TextEncoder, writer: EmbeddingWriter, texts: Sequence[MissingRow[str]]) -> BatchResult:
        began, words = time.time(), [text.made_from for text in texts]
        n_tokens, truncated = encoder.tokens(words)
        try:
            vectors = list(encoder.encode(words, batch_size=self._batch_size))
        except RuntimeError as error:  # torch's, such as too little memory: smaller batches may pass
            if len(texts) == 1:
                return BatchResult(0, 0, (Refusal(texts[0].source_id, "engine_error", one_line(error)[:300]),))
            return sum((self._embed(encoder, writer, half) for half in _halves(texts)), BatchResult())
        return writer.write(texts, vectors, truncated, sum(n_tokens), began)


class HttpEmbeddingEngine:
    """A model behind an API like OpenAI's.

    It does not say whether it truncates: one that follows the API reference refuses a text that is too long, which
    then fails with 'too_long'.

    Parameters
    ----------
    endpoint : Endpoint
    prefix : str
        Put before each document.
    batch_size : int
        Texts a request.
    """

    max_length = None

    def __init__(self, endpoint: Endpoint, prefix: str, batch_size: int) -> None:
        # The endpoint may name its model otherwise from answer to answer; what we ask for does not change.
        model_hash = delta.digest(["http", endpoint.extra_body])
        self.spec = EmbeddingSpec(endpoint.model, prefix, model_hash, fixes_dimension=False)
        self._endpoint, self._batch_size = endpoint, batch_size

    @property
    def provenance(self) -> Provenance:
        """Engine and model, as far as the endpoint names them."""
        return self._probe[0]

    @property
    def dimension(self) -> int:
        """Length of its first vector."""
        return self._probe[1]

    @cached_property
    def _probe(self) -> tuple[Provenance, int]:
        async def ask() -> tuple[Provenance, int]:
            async with EndpointClient(self._endpoint) as client:
                try:
                    answer = await client.embed([self.spec.prefix + _PROBE_TEXT])
                except RefusedInput as refused:
                    raise LexrayError(f"{client}: it does not embed '{_PROBE_TEXT}': {refused}") from None
                runs = await client.engine()
                return Provenance("http", runs, self._endpoint.model, answer.model), answer.vectors[0].size

        return asyncio.run(ask())

    def embed(self, plan: RowPlan[str], parts: Sequence[int]) -> Iterator[BatchResult]:
        """As `EmbeddingEngine.embed`; several requests are under way at once."""
        return _iterate(self._answers(EmbeddingWriter(plan.rows, self.provenance), plan, parts))

    async def _answers(
        self, writer: EmbeddingWriter, plan: RowPlan[str], parts: Sequence[int]
    ) -> AsyncIterator[BatchResult]:
        waiting: set[asyncio.Task[BatchResult]] = set()
        async with EndpointClient(self._endpoint) as client:
            try:
                for texts in _batches(plan, parts, self._batch_size):
                    waiting.add(asyncio.create_task(self._embed(client, writer, texts)))
                    if len(waiting) >= 2 * self._endpoint.connections:
                        finished, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                        for task in finished:
                            yield task.result()
                for answer in asyncio.as_completed(waiting):
                    yield await answer
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    async def _embed(
        self, client: EndpointClient, writer: EmbeddingWriter, texts: Sequence[MissingRow[str]]
    ) -> BatchResult:
        began = time.time()
        try:
            answer = await client.embed([self.spec.prefix + text.made_from for text in texts])
        except RefusedInput as refused:
            if len(texts) == 1:
                return BatchResult(0, 0, (Refusal(texts[0].source_id, refused.reason, refused.detail),))
            # The endpoint does not say which text it refused.
            both = await asyncio.gather(*(self._embed(client, writer, half) for half in _halves(texts)))
            return sum(both, BatchResult())
        return await asyncio.to_thread(writer.write, texts, answer.vectors, [None] * len(texts), answer.tokens, began)


def _batches(plan: RowPlan[str], parts: Sequence[int], size: int) -> Iterator[list[MissingRow[str]]]:
    """Texts without a vector, `size` at a time, across parts."""
    batch: list[MissingRow[str]] = []
    for part in parts:
        for text in plan.missing(part):
            batch.append(text)
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _halves(texts: Sequence[MissingRow[str]]) -> tuple[Sequence[MissingRow[str]], Sequence[MissingRow[str]]]:
    middle = len(texts) // 2
    return texts[:middle], texts[middle:]


def _iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """The items of an asynchronous iterator, one by one, from synchronous code."""

    async def following() -> T | None:
        return await anext(items, None)

    with asyncio.Runner() as runner:
        while (item := runner.run(following())) is not None:
            yield item
