"""More papers than a model can read at once: whole sentences, put into as few prompts as hold them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Tokens of each of some texts, by the model's own tokenizer.
Count = Callable[[Sequence[str]], Sequence[int]]
#: For what stands between two sentences, which no tokenizer counts with either.
_JOINT = 1


@dataclass(frozen=True)
class Pack:
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
class Reading:
    """A paper as a model reads it.

    Attributes
    ----------
    head : str
        Label, year and title; stands before its sentences in every prompt.
    sentences : tuple of str
    """

    head: str
    sentences: tuple[str, ...]


def pack(readings: Sequence[Reading], room: int, most: int, count: Count) -> list[Pack]:
    """Fill prompts with papers in their order; no sentence is cut, and none is in two prompts.

    A paper that would fit a prompt of its own is not divided; a longer one goes on in the next.

    Parameters
    ----------
    readings : sequence of Reading
        The most relevant first.
    room : int
        Tokens that a prompt's papers may have.
    most : int
        Prompts. What does not fit into so many is left out.
    count : callable
        See `Count`.

    Returns
    -------
    list of Pack
        Fewer than `most` where that is enough. A sentence that is longer than `room` is in none.
    """
    texts = [text for reading in readings for text in (reading.head, *reading.sentences)]
    lengths = iter([n + _JOINT for n in count(texts)])
    prompts: list[dict[int, list[str]]] = [{}]  # sentences by paper
    free = room
    for number, reading in enumerate(readings):
        head, *rest = (next(lengths) for _ in range(1 + len(reading.sentences)))
        if free < head + sum(rest) <= room:
            prompts.append({})
            free = room
        for sentence, length in zip(reading.sentences, rest, strict=True):
            if head + length > room:
                continue
            needed = length if number in prompts[-1] else head + length
            if needed > free:
                prompts.append({})
                free, needed = room, head + length
            prompts[-1].setdefault(number, []).append(sentence)
            free -= needed
    return [_pack(readings, prompt) for prompt in prompts if prompt][:most]


def _pack(readings: Sequence[Reading], prompt: dict[int, list[str]]) -> Pack:
    blocks = (f"{readings[number].head}\n{' '.join(sentences)}" for number, sentences in prompt.items())
    return Pack("\n\n".join(blocks), tuple(prompt))
