"""More papers than a model can read at once: whole sentences, put into as few prompts as hold them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Tokens of each of some texts, by the model's own tokenizer.
TokenCounter = Callable[[Sequence[str]], Sequence[int]]
#: For what stands between two sentences, which no tokenizer counts with either.
_SEPARATOR_TOKENS = 1


@dataclass(frozen=True)
class Chunk:
    """What goes into one prompt.

    Attributes
    ----------
    text : str
    papers : tuple of int
        Numbers of the papers that it holds sentences of, in order.
    """

    text: str
    papers: tuple[int, ...]


@dataclass(frozen=True)
class PromptPaper:
    """A paper as a model reads it.

    Attributes
    ----------
    head : str
        Label, year and title; stands before its sentences in every prompt.
    sentences : tuple of str
    """

    head: str
    sentences: tuple[str, ...]


def chunk_papers(papers: Sequence[PromptPaper], max_tokens: int, max_chunks: int, count: TokenCounter) -> list[Chunk]:
    """Fill prompts with papers in their order; no sentence is cut, and none is in two prompts.

    A paper that would fit a prompt of its own is not divided; a longer one goes on in the next.

    Parameters
    ----------
    papers : sequence of PromptPaper
        The most relevant first.
    max_tokens : int
        Tokens that a prompt's papers may have.
    max_chunks : int
        Prompts. What does not fit into so many is left out.
    count : callable
        See `TokenCounter`.

    Returns
    -------
    list of Chunk
        Fewer than `max_chunks` where that is enough. A sentence that is longer than `max_tokens` is in none.
    """
    counts = count([text for reading in papers for text in (reading.head, *reading.sentences)])
    lengths = (n + _SEPARATOR_TOKENS for n in counts)
    prompts: list[dict[int, list[str]]] = [{}]  # sentences by paper
    free = max_tokens
    for number, reading in enumerate(papers):
        head, *rest = (next(lengths) for _ in range(1 + len(reading.sentences)))
        if free < head + sum(rest) <= max_tokens:
            prompts.append({})
            free = max_tokens
        for sentence, length in zip(reading.sentences, rest, strict=True):
            if head + length > max_tokens:
                continue
            needed = length if number in prompts[-1] else head + length
            if needed > free:
                prompts.append({})
                free, needed = max_tokens, head + length
            prompts[-1].setdefault(number, []).append(sentence)
            free -= needed
    return [
        Chunk("\n\n".join(f"{papers[number].head}\n{' '.join(said)}" for number, said in prompt.items()), tuple(prompt))
        for prompt in prompts
        if prompt
    ][:max_chunks]
