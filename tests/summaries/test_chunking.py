"""Papers in prompts: whole sentences, none twice, none lost without a word."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lexray.summaries.chunking import Chunk, PromptPaper, chunk_papers


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_what_fits_is_one_prompt_in_the_papers_order() -> None:
    readings = [PromptPaper("[P1] 2001", ("It flares.", "It pulses.")), PromptPaper("[P2] 2002", ("It is hot.",))]
    assert chunk_papers(readings, 100, 5, words) == [
        Chunk("[P1] 2001\nIt flares. It pulses.\n\n[P2] 2002\nIt is hot.", (0, 1))
    ]


def test_a_paper_that_fits_a_prompt_is_not_divided_and_a_longer_one_goes_on_under_its_own_head() -> None:
    short = PromptPaper("[P1]", ("one two three.",))
    whole = PromptPaper("[P2]", ("four five six.", "seven eight."))
    packs = chunk_papers([short, whole], 12, 5, words)  # each text takes one more than its words
    assert [p.papers for p in packs] == [(0,), (1,)]
    long = PromptPaper("[P3]", tuple(f"sentence number {i}." for i in range(5)))
    packs = chunk_papers([long], 11, 9, words)
    assert [p.text.splitlines()[0] for p in packs] == ["[P3]"] * 3
    assert [p.papers for p in packs] == [(0,)] * 3


def test_what_does_not_fit_into_so_many_prompts_is_left_out_and_the_pack_says_which_papers_it_holds() -> None:
    readings = [PromptPaper(f"[P{i}]", ("five words are in here.",)) for i in range(6)]
    packs = chunk_papers(readings, 8, 2, words)
    assert [p.papers for p in packs] == [(0,), (1,)]


def test_a_sentence_longer_than_a_prompt_is_not_cut() -> None:
    packs = chunk_papers([PromptPaper("[P1]", ("short one.", "word " * 50, "short two."))], 20, 3, words)
    assert [p.text for p in packs] == ["[P1]\nshort one. short two."]
    assert chunk_papers([PromptPaper("[P1]", ("word " * 50,))], 20, 3, words) == []


_sentence = st.integers(1, 12).map(lambda n: " ".join(["w"] * n) + ".")


@given(st.lists(st.lists(_sentence, max_size=6), max_size=5), st.integers(5, 40))
def test_every_sentence_that_fits_is_in_exactly_one_prompt_and_no_prompt_is_too_long(
    papers: list[list[str]], room: int
) -> None:
    readings = [
        PromptPaper(f"[P{i}]", tuple(f"{text} s{i}.{k}." for k, text in enumerate(texts)))
        for i, texts in enumerate(papers)
    ]
    packs = chunk_papers(readings, room, 99, words)
    everything = " ".join(p.text for p in packs)
    for i, reading in enumerate(readings):
        for k, sentence in enumerate(reading.sentences):
            fits = len(sentence.split()) + 1 + 2 <= room
            assert everything.split().count(f"s{i}.{k}.") == int(fits)
    assert all(len(p.text.split()) <= room for p in packs)
    assert [number for p in packs for number in p.papers] == sorted(number for p in packs for number in p.papers)
