"""The words that papers use for the physics of X-ray sources."""

import functools
import re

#: Stems (see `terms`) of words for a source's class, spectrum, variability and surroundings.
PHYSICAL = frozenset(
    """
    aperiodic coherent cold constant cool curve gas light loop non-variable sinusoidal stable strong unchanged weak
    absorb absorbed absorption accreting accretion accretor active afterglow agn amplitude bh binaries binary black
    blackbody body bow bremsstrahlung bright burst bursting cataclysmic cepheid circumstellar classical cluster column
    compact companion component compton comptonisation comptonization comptonized continuum cooling corona coronal
    count cutoff cv cyclotron decay decline density detached dim dip dipping disc disk donor dust dwarf eclipse
    eclipsing eddington emission envelope episodic erg excess exponential extended extinction faint field flare
    flaring flicker flickering flux frequency galactic galaxy giant hard hardening hardness heating helium high hmxb
    hole hot hydrogen inclination index intermediate intrinsic ionised ionized iron isolated jet kev late-type limb
    line lmxb low luminosity luminous magnetar magnetic magnetically main-sequence mass massive merger metallicity
    microquasar millisecond modulation nebula neutron noise nova nuclear nucleus ob obscured orbit orbital oscillation
    outburst outflow period periodic periodicity persistent photoelectric photoionised photon plasma polar power
    power-law pre-main-sequence protostar pulsar pulsation pulse pulsed qpo quasar quasi-periodic quiescence quiescent
    radius rapid reconnection recurrent red redshift reflection remnant rotating rotation seyfert shock shocked slope
    soft softening spectra spectral spectrum spin spin-up star starburst state steady steep stellar stochastic
    sub-eddington super-eddington supergiant supernova supersoft t-tauri tauri temperature thermal thermonuclear
    transient transition ultraluminous ulx unabsorbed unobscured variability variable variation vary wd white wind
    x-ray young yso
    """.split()  # noqa: SIM905 -- a list of one word a line would bury the code
)

#: Phrases, in lower case, of sentences that are about the paper, not about the source.
ABOUT_THE_PAPER = re.compile(
    r"\b(?:we (?:discuss|present|report|describe|review|summari[sz]e|compare our)|in this (?:paper|work|letter|study)"
    r"|(?:future|further|additional|follow-?up|deeper|more) (?:\w+ ){0,2}(?:observation|work|stud|monitoring)\w*"
    r"|data (?:reduction|were reduced|were processed)|standard (?:\w+ )?(?:pipeline|procedures?|screening|tools)"
    r"|(?:is|are) discussed|implications|we (?:thank|acknowledge)|(?:errors|uncertainties) are|confidence level"
    r"|(?:was|were) (?:extracted|grouped|searched)|part of an? (?:\w+ )?(?:survey|programme?))\b",
)

_STOPWORDS = frozenset(
    """
    a about above after again all also although am an and any are as at be been before being below between both but by
    can could did do does during each either few find first for found from further had has have here how however if in
    into is it its itself may might more most no nor not of on once one only or other our out over own per same should
    since so some such than that the their them then there these they this those through thus to too two under until
    up upon using very via was we well were what when where whether which while who with within without would yet
    """.split()  # noqa: SIM905 -- a list of one word a line would bury the code
)
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")


def terms(sentence: str) -> list[str]:
    """Words of a sentence that carry meaning, lower-case, plurals made singular.

    >>> terms("The spectra show two X-ray flares")
    ['spectra', 'show', 'x-ray', 'flare']
    """
    return [term for term in map(_term, _WORD.findall(sentence)) if term]


@functools.lru_cache(maxsize=65536)  # papers on one subject share their words
def _term(word: str) -> str:
    """The term of a word, empty where it carries no meaning."""
    term = singular(word.lower())
    return term if len(term) > 1 and term not in _STOPWORDS else ""


@functools.lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """A lower-case word without the s of its plural."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
