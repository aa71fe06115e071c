"""Engines that make vectors of texts without Ray: sentence-transformers in this process, and models behind an API.

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
    EmbeddingFailure,
    EmbeddingSpec,
    EmbeddingWriter,
    Provenance,
    SourceText,
    WorkPlan,
)
from lexray.errors import LexrayError, RefusedInput
from lexray.llm.openai import Endpoint, EndpointClient
from lexray.llm.sentence_encoder import TextEncoder, TextModel, Vectors
from lexray.tables import delta

T = TypeVar("T")
#: What an endpoint is asked before anything else: how long its vectors are, and which model gives them.
_PROBE_TEXT = "an X-ray source"


class EmbeddingEngine(Protocol):
    """Makes vectors.

    Attributes
    ----------
    recipe : Recipe
        Known before anything is started.
    """

    recipe: EmbeddingSpec

    @property
    def max_length(self) -> int | None:
        """Tokens of a text that are read; None where that is not ours to say."""

    @property
    def stamp(self) -> Provenance:
        """What the rows say of their origin."""

    @property
    def dimension(self) -> int:
        """Of the vectors, T."""

    def embed(self, plan: WorkPlan, parts: Sequence[int]) -> Iterator[BatchResult]:
        """Embed and keep what is left of some parts, some texts at a time.

        Raises
        ------
        LexrayError
            If the engine cannot start, or cannot go on. What is kept stays.
        """


def embedding_spec(model: TextModel) -> EmbeddingSpec:
    """What decides the vectors of a model that is on disk."""
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
        self.recipe, self.dimension, self.max_length = embedding_spec(model), model.dimension, model.max_length
        self.stamp = Provenance(
            "hf", f"sentence-transformers {version('sentence-transformers')}", model.name, model.revision
        )
        self._model, self._device, self._batch_size = model, device, batch_size

    def embed(self, backlog: WorkPlan, parts: Sequence[int]) -> Iterator[BatchResult]:
        """As `Engine.embed`."""
        encoder = TextEncoder(self._model, self._device)
        keeper = EmbeddingWriter(backlog.out, self.stamp, self.dimension)
        for texts in _batches(backlog, parts, self._batch_size):
            yield self._keep(encoder, keeper, texts)

    def _keep(self, encoder: TextEncoder, keeper: EmbeddingWriter, texts: Sequence[SourceText]) -> BatchResult:
        began, words = time.time(), [text.text for text in texts]
        n_tokens, truncated = encoder.tokens(words)
        try:
            vectors = list(encoder.encode(words, batch_size=self._batch_size))
        except RuntimeError as error:  # torch's, such as too little memory: smaller batches may pass
            if len(texts) == 1:
                return BatchResult(
                    0, 0, (EmbeddingFailure(texts[0].source_id, "engine_error", " ".join(str(error).split())[:300]),)
                )
            return _combine([self._keep(encoder, keeper, half) for half in _halves(texts)])
        return keeper.keep(texts, vectors, truncated, sum(n_tokens), began)


class HttpEmbeddingEngine:
    """A model behind an API like OpenAI's.

    Nothing says whether it truncates: one that does as the API reference says refuses a text that is too long, which
    then fails with 'too_long'.

    Parameters
    ----------
    endpoint : Endpoint
    prefix : str
        What its model wants before a document.
    batch_size : int
        Texts a request.
    """

    max_length = None

    def __init__(self, endpoint: Endpoint, prefix: str, batch_size: int) -> None:
        # What the endpoint says of its model may change from answer to answer; what we ask for does not.
        self.recipe = EmbeddingSpec(endpoint.model, prefix, delta.digest(["http", endpoint.extra_body]))
        self._endpoint, self._batch_size = endpoint, batch_size

    @property
    def stamp(self) -> Provenance:
        """What the rows say of their origin, as far as the endpoint says it."""
        return self._hello[0]

    @property
    def dimension(self) -> int:
        """Of its first vector."""
        return self._hello[1]

    @cached_property
    def _hello(self) -> tuple[Provenance, int]:
        async def ask() -> tuple[Provenance, int]:
            async with EndpointClient(self._endpoint) as client:
                try:
                    answer = await client.embed([self.recipe.prefix + _PROBE_TEXT])
                except RefusedInput as refused:
                    raise LexrayError(f"{client}: it does not embed '{_PROBE_TEXT}': {refused}") from None
                runs = await client.engine()
                return Provenance("http", runs, self._endpoint.model, answer.model), answer.vectors[0].size

        return asyncio.run(ask())

    def embed(self, backlog: WorkPlan, parts: Sequence[int]) -> Iterator[BatchResult]:
        """As `Engine.embed`; several requests are under way at once."""
        keeper = EmbeddingWriter(backlog.out, self.stamp, self.dimension)
        return _iterate(self._answers(keeper, backlog, parts))

    async def _answers(
        self, keeper: EmbeddingWriter, backlog: WorkPlan, parts: Sequence[int]
    ) -> AsyncIterator[BatchResult]:
        waiting: set[asyncio.Task[BatchResult]] = set()
        async with EndpointClient(self._endpoint) as client:
            try:
                for texts in _batches(backlog, parts, self._batch_size):
                    waiting.add(asyncio.create_task(self._keep(client, keeper, texts)))
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

    async def _keep(self, client: EndpointClient, keeper: EmbeddingWriter, texts: Sequence[SourceText]) -> BatchResult:
        began = time.time()
        try:
            answer = await client.embed([self.recipe.prefix + text.text for text in texts])
        except RefusedInput as refused:
            if len(texts) == 1:
                return BatchResult(0, 0, (EmbeddingFailure(texts[0].source_id, refused.reason, refused.detail),))
            # Nobody says which text it was.
            return _combine(await asyncio.gather(*(self._keep(client, keeper, half) for half in _halves(texts))))
        vectors: list[Vectors] = answer.vectors
        return await asyncio.to_thread(keeper.keep, texts, vectors, [None] * len(texts), answer.tokens, began)


def _batches(backlog: WorkPlan, parts: Sequence[int], size: int) -> Iterator[list[SourceText]]:
    """Texts that are left, `size` at a time, whatever their part."""
    batch: list[SourceText] = []
    for part in parts:
        for text in backlog.left(part):
            batch.append(text)
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _halves(texts: Sequence[SourceText]) -> tuple[Sequence[SourceText], Sequence[SourceText]]:
    middle = len(texts) // 2
    return texts[:middle], texts[middle:]


def _combine(done: Sequence[BatchResult]) -> BatchResult:
    return BatchResult(
        sum(one.n_rows for one in done),
        sum(one.n_tokens for one in done),
        tuple(failure for one in done for failure in one.failures),
        min(one.began for one in done),
        max(one.ended for one in done),
    )


def _iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """An asynchronous iterator's items, for code that is not."""

    async def following() -> T | None:
        return await anext(items, None)

    with asyncio.Runner() as runner:
        while (item := runner.run(following())) is not None:
            yield item
