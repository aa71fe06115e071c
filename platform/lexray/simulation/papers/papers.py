"""Abstracts of papers that never were, on simulated sources, from the same parameters as their photons.

What the X-ray data carry too (brightness, hardness, kind and strength of variability) is mostly said in graded words,
sometimes in numbers, each paper with measurement errors of its own. No paper names its source or tells its position.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from lexray.simulation.papers import grades, phrases
from lexray.simulation.papers.grammar import expand
from lexray.simulation.source import SimulatedSource

#: Share of the sources that have papers.
SHARE_WITH_PAPERS = 0.9
MAX_PAPERS = 4
#: Facts that nearly every source's papers tell at least once, and how often an abstract takes each.
_CORE = ("brightness", "hardness", "variability")
_WEIGHTS = {
    "brightness": 3.0,
    "hardness": 3.0,
    "variability": 3.0,
    "variability_more": 1.5,
    "spectrum": 2.0,
    "iron": 0.7,
    "absorption": 1.5,
    "long_term": 1.0,
    "luminosity": 1.2,
    "nature": 2.0,
    "nature_more": 0.8,
}
_JOURNALS = ("ApJ..", "MNRAS", "A&A..", "AJ...", "ApJS.", "PASJ.", "RAA..", "AN...")
#: Sentences of the topic 'variability' that tell none.
_UNDETECTED_TOPIC = dict.fromkeys(phrases.UNDETECTED, "undetected")
_IN_TITLES = {"<class_name>": "nature", "<kind>": "variability"}


@dataclass(frozen=True)
class SimulatedPaper:
    """A simulated paper, and which fact each of its sentences was made to tell.

    Attributes
    ----------
    paper : dict
        As `simulate_papers` gives it.
    sentences : tuple of (str, str)
        Topic and text of each sentence of the abstract: 'nature', 'variability', 'spectrum' … and 'filler'. One that
        says of variability that too few photons were had to see any is 'undetected'.
    in_title : frozenset of str
        Topics that the title tells: what the source is, and how it varies.
    """

    paper: dict[str, Any]
    sentences: tuple[tuple[str, str], ...]
    in_title: frozenset[str]


def simulate_papers(source: SimulatedSource, seed: int) -> list[dict[str, Any]]:
    """Papers on a source: none for a tenth of them, else one to four.

    Parameters
    ----------
    source : SimulatedSource
        What is true of it is what they tell.
    seed : int
        The archive's; the papers depend on it and on the source's index alone.

    Returns
    -------
    list of dict
        `source_id`, `ra`, `dec`, `bibcode`, `arxiv`, `year`, `title`, `abstract`: a line of `literature.jsonl` each.
    """
    return [told.paper for told in simulate_papers_with_topics(source, seed)]


def simulate_papers_with_topics(source: SimulatedSource, seed: int) -> list[SimulatedPaper]:
    """The papers of `simulate_papers`, with what each sentence is about."""
    # Python's generator: it is fast for single choices, and its `choice` is the same in every version.
    chance = Random(int(np.random.SeedSequence(seed, spawn_key=(source.index, 1)).generate_state(1, np.uint64)[0]))
    if chance.random() >= SHARE_WITH_PAPERS:
        return []
    has = {"iron": bool(source.spectrum.line_share), "long_term": len(source.observations) > 1}
    facts = [fact for fact in _WEIGHTS if has.get(fact, True)]
    plans = [_plan(facts, chance) for _ in range(chance.choice((1, 2, 2, 3, 3, 4)))]
    for fact in _CORE:
        if not any(fact in plan for plan in plans) and chance.random() < 0.95:
            chance.choice(plans).append(fact)
    # Chandra's time zero is the start of 1998; papers are a year behind the first observation at least.
    first_year = max(2008, 1999 + int(source.observations[0].t_start / 3.156e7))
    return [_paper(source, number, plan, chance, first_year, seed) for number, plan in enumerate(plans)]


def _plan(facts: list[str], chance: Random) -> list[str]:
    """Facts that an abstract of 4 to 9 sentences tells, and its fillers; room is left for one more fact."""
    n_sentences = chance.randint(4, 8)
    n_fillers = chance.choice((0, 1, 1, 2)) if n_sentences < 7 else chance.choice((1, 2))
    left = list(facts)
    chosen: list[str] = []
    while left and len(chosen) < n_sentences - n_fillers:
        fact = chance.choices(left, [_WEIGHTS[f] for f in left])[0]
        left.remove(fact)
        chosen.append(fact)
    return chosen + ["filler"] * n_fillers


def _paper(
    source: SimulatedSource, number: int, plan: list[str], chance: Random, first_year: int, seed: int
) -> SimulatedPaper:
    slots = _slots(source, chance)
    chance.shuffle(plan)
    # What it is comes first, as in most abstracts.
    plan.sort(key=lambda fact: fact != "nature")
    unused: dict[str, list[str]] = {}
    sentences: list[tuple[str, str]] = []
    for fact in plan:
        topic = fact.removesuffix("_more")
        if topic not in unused:
            templates = _templates(source, topic, chance)
            unused[topic] = chance.sample(templates, len(templates))
        template = unused[topic].pop()
        sentences.append((_UNDETECTED_TOPIC.get(template, topic), expand(template, slots, chance)))
    year = min(2026, first_year + chance.choice((0, 0, 1, 1, 2, 3, 5, 8)))
    bibcode, arxiv = _identifiers(4 * source.index + number, year, chance, seed)
    title = chance.choice(phrases.TITLES)
    paper = {
        "source_id": source.source_id,
        "ra": round(source.ra, 6),
        "dec": round(source.dec, 6),
        "bibcode": bibcode,
        "arxiv": arxiv,
        "year": year,
        "title": expand(title, slots, chance),
        "abstract": " ".join(sentence for _, sentence in sentences),
    }
    return SimulatedPaper(
        paper, tuple(sentences), frozenset(topic for slot, topic in _IN_TITLES.items() if slot in title)
    )


def _templates(source: SimulatedSource, fact: str, chance: Random) -> tuple[str, ...]:
    variability = source.variation.kind
    if fact == "variability":
        if variability == "steady" or _is_detectable(source) or chance.random() < 0.5:
            return phrases.VARIABILITY[variability]
        return phrases.UNDETECTED
    return {
        "spectrum": phrases.SPECTRUM[_spectral_model(source)],
        "iron": phrases.SPECTRUM["iron"],
        "nature": phrases.NATURE[source.source_class.name],
        "brightness": phrases.BRIGHTNESS,
        "hardness": phrases.HARDNESS,
        "absorption": phrases.ABSORPTION,
        "long_term": phrases.LONG_TERM,
        "luminosity": phrases.LUMINOSITY,
        "filler": phrases.FILLERS,
    }[fact]


def _is_detectable(source: SimulatedSource) -> bool:
    labels = source.labels
    fast = source.variation.kind == "periodic" and source.variation.relative_timescale < 1 / 128
    strength = source.variation.amplitude / 2**0.5 if fast else labels["rms"]
    # With less, a test for variability finds nothing: χ² of about three standard deviations.
    return bool(labels["expected_counts"] * strength**2 > 12)


def _spectral_model(source: SimulatedSource) -> str:
    s = source.spectrum
    if np.isfinite(s.gamma):
        return "power_law_bb" if s.bb_share else "power_law"
    return "two_plasmas" if s.hot_share else "plasma"


def _slots(source: SimulatedSource, chance: Random) -> dict[str, str]:
    """Words and numbers of a source, the numbers as one paper would have measured them."""
    labels, s, v = source.labels, source.spectrum, source.variation

    def measured(value: float, error: float = 0.05) -> float:
        return value * float(np.exp(chance.gauss(0.0, error)))

    rms = labels["rms"]
    amount = min(measured(v.amplitude) * 100, 99.0)
    return {
        **phrases.COMMON,
        "brightness": grades.BRIGHTNESS.word(labels["log_rate"]),
        "statistics": grades.STATISTICS.word(labels["log_rate"]),
        "hardness": grades.HARDNESS.word(labels["hr_hs"]),
        "photons": grades.PHOTONS.word(labels["hr_hs"]),
        "absorption": grades.ABSORPTION.word(s.nh),
        "amplitude": grades.AMPLITUDE.word(rms),
        "relative": grades.TIMESCALE.word(v.relative_timescale),
        "long_term": grades.LONG_TERM.word(labels["rms_between"]),
        "flux_word": grades.FLUX.word(labels["log_flux"]),
        "class_name": phrases.CLASS_NAMES[source.source_class.name],
        "kind": phrases.VARIABILITY_NAMES[v.kind],
        "depth_word": grades.AMPLITUDE.word(v.amplitude / 2**0.5),
        "steepness": "{which is flat|which is hard}"
        if s.gamma < 1.4
        else "{of normal slope|}"
        if s.gamma < 2
        else "{which is steep|}",
        "steepness_word": "{flat|hard}" if s.gamma < 1.4 else "{typical|canonical}" if s.gamma < 2 else "{steep|soft}",
        "heat": "hot" if s.kt_hot > 1.5 else "warm",
        "rate": f"{measured(10 ** labels['log_rate']):.2g}",
        "counts": f"{_two_digits(measured(labels['expected_counts'])):.0f}",
        "flux": _scientific(measured(10 ** labels["log_flux"]), chance),
        "hr": f"{labels['hr_hs'] + chance.gauss(0, 0.02):+.2f}",
        "nh": _scientific(measured(s.nh, 0.1) * 1e22, chance),
        "log_nh": f"{22 + np.log10(measured(s.nh, 0.1)):.1f}",
        "gamma": f"{measured(s.gamma, 0.03):.1f}",
        "kt": f"{measured(s.kt):.2g}",
        "kt_hot": f"{measured(s.kt_hot):.2g}",
        "kt_bb": f"{measured(s.kt_bb):.2g}",
        "bb_percent": f"{100 * s.bb_share:.0f}",
        "hot_percent": f"{100 * s.hot_share:.0f}",
        "rms": f"{100 * measured(rms):.0f}",
        "factor": f"{measured(1 + v.amplitude):.1f}",
        "depth": f"{amount:.0f}",
        "amount": f"{amount:.0f}",
        "period": _duration(measured(v.period, 0.001)),
        "timescale": _duration(measured(v.timescale)),
        "distance": _distance(measured(source.distance)),
        "lx": _scientific(measured(source.luminosity), chance),
        "log_lx": f"{np.log10(source.luminosity):.1f}",
        "redshift": f"{source.redshift:.2f}",
    }


def _scientific(value: float, chance: Random) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} x 10^{int(exponent)}" if chance.random() < 0.7 else f"{mantissa}e{int(exponent)}"


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _duration(seconds: float) -> str:
    if not np.isfinite(seconds):
        return ""
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _distance(kpc: float) -> str:
    return f"{1000 * kpc:.0f} pc" if kpc < 1 else f"{kpc:.1f} kpc" if kpc < 1000 else f"{kpc / 1000:.0f} Mpc"


def _identifiers(number: int, year: int, chance: Random, seed: int) -> tuple[str, str]:
    """Bibcode and arXiv number of the archive's paper `number`.

    Volume and page together are `number` under a permutation of ten million, so no two papers share a bibcode.
    """
    volume, page = divmod((number * 4_321_987 + seed % 1000) % 9_980_000, 9999)
    bibcode = f"{year}{chance.choice(_JOURNALS)}{volume + 1:.>4}.{page + 1:.>4}{chance.choice('ABCDEFGHIKLMNPRSTVWZ')}"
    digits = 4 if year < 2015 else 5
    return bibcode, f"{year % 100:02d}{chance.randint(1, 12):02d}.{chance.randint(1, 10**digits - 1):0{digits}d}"
