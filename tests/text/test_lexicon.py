"""Words for what a source is and does, the numbers beside them, and whom a sentence speaks of."""

import re

import pytest
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st

from lexray.text.attribution import attribute_sentences
from lexray.text.designations import SourceNames
from lexray.text.labels import ObjectClass
from lexray.text.lexicon import LABELS, find_mentions, majority_labels, mentioned_labels, trigger_words
from lexray.text.quantities import find_quantities, format_unit, is_same_quantity, read_quantity
from lexray.text.quantity_names import quantity_name
from lexray.text.sentences import split_sentences


def labels(sentence: str) -> set[str]:
    return {label for _, label in mentioned_labels(sentence)}


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("An HMXB with eclipses", {"HMXB", "X-ray binary", "eclipsing", "variable"}),
        ("low-mass X-ray binaries", {"LMXB", "X-ray binary"}),
        ("a ULX pulsar", {"ULX", "neutron star"}),
        ("It is a ULXP.", {"ULX", "neutron star"}),
        ("an accreting white dwarf with an M dwarf donor", {"CV"}),
        ("CVs in 10 ns", {"CV"}),
        ("classical T Tauri star", {"young star", "star"}),
        ("no evidence of pulsations or eclipses", set()),
        ("This rules out an AGN", set()),
        ("An AGN is ruled out", set()),
        ("not a ULX but an HMXB", {"HMXB", "X-ray binary"}),
        ("Unlike a CV, it is a magnetar", {"magnetar", "neutron star"}),
        ("We find no flares, dips or periodic signals; it is a steady emitter.", {"steady"}),
        ("No variability is found; the flux is constant.", {"steady"}),
        ("the spin-up rate remained almost constant", set()),
        ("Variability remains undetected.", set()),
        ("A power law and a black body are needed.", {"power law", "blackbody", "power law and thermal"}),
        ("a power-law with no evidence of a thermal component", {"power law"}),
        ("star-forming regions and a companion star, over a period of years", set()),
        ("possibly a background AGN", {"AGN"}),
        ("The light curve is dominated by red noise.", {"irregular", "variable"}),
    ],
)
def test_sentences_say_what_they_say(sentence: str, said: set[str]) -> None:
    assert labels(sentence) == said


def test_doubt_weighs_less_than_a_statement() -> None:
    assert [m.stance for m in find_mentions("It may be a ULX. Pulsations are ruled out.")] == ["hedged", "denied"]
    assert majority_labels(["It may be an AGN.", "It is a CV."])["object_class"] == "CV"
    assert majority_labels(["The neutron star is variable.", "The neutron star spins.", "It is an HMXB."]) == {
        "object_class": "HMXB",
        "variability": "variable",
        "spectral_shape": "unknown",
    }


@pytest.mark.parametrize("kind", list(LABELS))
def test_every_label_has_words_by_which_it_is_found(kind: str) -> None:
    for label in LABELS[kind]:  # type: ignore[index]
        if label != "unknown":
            assert trigger_words([(kind, label)]), label  # type: ignore[list-item]
    for label in LABELS["object_class"]:
        if label not in ("unknown", "galaxy"):  # 'in a galaxy' says where, and not what
            assert label in labels(f"The source is a {label}."), label
    assert "unknown" in ObjectClass.__args__  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"$62.0 \pm 2.5$ days", [(62.0, 2.5, "d")]),
        ("4.7 x 10^{39} erg s^{-1}", [(4.7e39, None, "erg/s")]),
        (r"$2.4 \times 10^{40} \rm erg s^{-1}$", [(2.4e40, None, "erg/s")]),
        ("4.7×10³⁹ erg s⁻¹ or 4.7 × 10<SUP>39</SUP> erg/s", [(4.7e39, None, "erg/s")] * 2),
        ("(4.7 ± 0.2) x 10^{39} erg/s", [(4.7e39, 2e38, "erg/s")]),
        ("~2.5e38 erg/s", [(2.5e38, None, "erg/s")]),
        ("from 31.71 s to 31.54 s", [(31.71, None, "s"), (31.54, None, "s")]),
        ("1.3–1.7, from 1.3 to 1.7", [(1.3, None, "-"), (1.7, None, "-")] * 2),
        ("2-5 × 10^{39} erg/s", [(2e39, None, "erg/s"), (5e39, None, "erg/s")]),
        ("0.5-10 keV and 10keV", [(0.5, None, "keV"), (10.0, None, "keV"), (10.0, None, "keV")]),
        ("80%, 80 per cent", [(80.0, None, "%")] * 2),
        (r"10 $M_{\odot}$, 5 M$_\odot$ yr$^{-1}$", [(10.0, None, "M_sun"), (5.0, None, "M_sun/yr")]),
        ("nH = 3e21 cm^-2", [(3e21, None, "cm^-2")]),
        (r"$kT = 1.2^{+0.3}_{-0.2}$ keV", [(1.2, 0.3, "keV")]),
        ("one to three million years", [(1e6, None, "yr"), (3e6, None, "yr")]),
        ("a factor of two, three hours, two plasmas", [(2.0, None, "-"), (3.0, None, "h")]),
        ("1.23(4) s, -5.56 x 10^{-7} s s^{-1}", [(1.23, 0.04, "s"), (-5.56e-7, None, "-")]),
        ("10^{39.5} erg/s", [(10**39.5, None, "erg/s")]),
        ("10^{40-41} erg/s", [(1e40, None, "erg/s"), (1e41, None, "erg/s")]),
        (r"5 M_{\rm\odot}, $10\,M_{\rm \odot}$", [(5.0, None, "M_sun"), (10.0, None, "M_sun")]),
        ("13,000 counts at 3 sigma, 0.3 mCrab", [(13000.0, None, "ct"), (3.0, None, "sigma"), (0.3, None, "mCrab")]),
    ],
)
def test_quantities_are_numbers_with_units(text: str, found: list[tuple[float, float | None, str]]) -> None:
    quantities = find_quantities(text)
    assert [format_unit(quantity.unit) for quantity in quantities] == [unit for _, _, unit in found]
    assert [quantity.value for quantity in quantities] == pytest.approx([value for value, _, _ in found])
    assert [quantity.error is None for quantity in quantities] == [error is None for _, error, _ in found]
    for quantity, (_, error, _) in zip(quantities, found, strict=True):
        assert error is None or quantity.error == pytest.approx(error)
        assert text[quantity.start :].startswith(quantity.text.lstrip("(")[:2])


@pytest.mark.parametrize(
    "text",
    [
        "Dec. 2016, 1999 October, in 2010, 16 December 2016, Smith et al. 2018 (2018)",
        "NGC 300, M82 X-1, 4U 1626-67, 3C 273, ULX1, 2XMM J005504.8-374143, HD 12345, SN 1987A",
        "arXiv:1905.03740, 2019MNRAS.488.5225V, doi:10.1093/mnras/stz2095, ObsID 10027, Fig. 2, Table 3, [12]",
        "Z^2 tests, X-1, type-2, Fe K, H2",
        "log L_X = 39.7 erg/s, log(L_X / erg s^-1) = 39.7-40.2, twenty-six per cent, 3 x 10^{39.5} erg/s",
    ],
)
def test_years_names_and_references_are_none(text: str) -> None:
    assert [found.text for found in find_quantities(text)] == []


@pytest.mark.parametrize(
    ("said", "source", "agree"),
    [
        ("62 days", r"$62.0 \pm 2.5$ days", True), ("62 ± 2.5 days", r"$62.0 \pm 2.5$ days", True),
        ("62 ± 1.5 days", r"$62.0 \pm 2.5$ days", False), ("62.0 days", "61.8 days", False),
        ("5.36e6 s", "62 days", True), ("4.7e39 erg/s", "4.7e32 W", True), ("4.7e39 erg/s", "4.2e39 erg/s", False),
        ("~60 days", "62 days", True), ("60 days", "62 days", False), ("0.8", "80%", True),
        ("1.16e7 K", "1.0 keV", True), ("1.9", "1.9 keV", False),
        ("photon index of 1.9 and 0.2 keV", "an index of 1.9", True), ("two hours", "2 h", True),
    ],
)  # fmt: skip
def test_numbers_agree_to_the_digits_that_are_said(said: str, source: str, agree: bool) -> None:
    assert is_same_quantity(find_quantities(said)[0], find_quantities(source)[0]) is agree


_UNITS = st.sampled_from(
    [u.s, u.d, u.h, u.keV, u.erg / u.s, u.erg / u.cm**2 / u.s, u.cm**-2, u.M_sun, u.kpc, u.K, u.ct / u.s]
)


@settings(deadline=None, max_examples=150)
@given(st.floats(1e-30, 1e45), _UNITS, st.integers(0, 5))
def test_what_is_written_is_read_again(value: float, unit: u.UnitBase, digits: int) -> None:
    for written in (f"{value:.{digits}e}", f"{value:.{digits}e}".replace("e", " x 10^{").replace("+", "") + "}"):
        (found,) = find_quantities(f"about {written} {format_unit(unit)}")
        assert found.value == pytest.approx(float(f"{value:.{digits}e}"))
        assert found.unit == unit
        exact = read_quantity(f"{value:.12e}", format_unit(unit))[0]
        assert is_same_quantity(found, exact)
        other = read_quantity(f"{value * 1.7:.12e}", format_unit(unit))[0]
        assert digits == 0 or not is_same_quantity(read_quantity(f"{value:.{digits}e}", format_unit(unit))[0], other)


@settings(deadline=None, max_examples=150)
@given(st.text(st.sampled_from("0123456789.eE+-^{}$\\ ()±×xkeVs%,~–/") | st.characters(), max_size=60))
def test_any_text_can_be_searched(text: str) -> None:
    for found in find_quantities(text, number_words=True):
        assert abs(found.value) <= 1e300
        assert 0 <= found.start < len(text)
    assert attribute_sentences([text], SourceNames.of(["M82 X-1"])) in ([True], [False])
    mentioned_labels(text)


def test_units_that_prose_does_not_write_are_astropys() -> None:
    assert read_quantity("4.7e39", "erg / s")[0].unit == u.erg / u.s
    assert read_quantity("3", "m3 kg-1 s-2")[0].unit == u.m**3 / u.kg / u.s**2
    assert read_quantity("3", "bananas") == ()
    assert read_quantity("31.54-31.71", "s")[1].value == 31.71
    assert read_quantity("many", "s") == ()


def test_numbers_know_what_they_measure() -> None:
    text = (
        "With a period of 1.37 s and a luminosity of 4.7 x 10^{39} erg s^{-1} (0.3-30 keV), a power law of photon index"
        " 1.9 and a plasma of 0.6 keV are seen behind N_H = 3e21 cm^-2."
    )
    names = [quantity_name(text, found) for found in find_quantities(text)]
    assert names == ["period", "luminosity", None, None, "photon index", "plasma temperature", "column density"]


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("It is a ULX. X-2 is a pulsar. It has a period of 1.37 s. X-1 has none.", [1, 0, 0, 1]),
        ("M82 X-1 is bright. The disk is hot. In M82, X-2 is faint. Its disk is cool.", [1, 1, 0, 0]),
        ("This is like Cyg X-1. It has a hot disk.", [0, 1]),
        ("Unlike Cyg X-1, this source has a hot disk. It flares.", [1, 1]),
        ("4U 1626-67 has a period of 7.7 s. It is an LMXB. We find none here. It is steady.", [0, 0, 1, 1]),
        ("Both M82 X-1 and M82 X-2 vary. They are ULXs.", [1, 1]),
        ("The X-ray source is soft. XMM-Newton saw it at 0.3 Crab.", [1, 1]),
    ],
)
def test_sentences_belong_to_the_source_last_named(text: str, ours: list[int]) -> None:
    assert attribute_sentences(split_sentences(text), SourceNames.of(["M82 X-1"])) == [bool(one) for one in ours]


def test_a_paper_that_names_nobody_speaks_of_its_source() -> None:
    sentences = re.split(r"(?<=\.) ", "The source is soft. Its period is 62 days. It flares.")
    assert attribute_sentences(sentences, SourceNames.of(["LXR J070949.6+500005"])) == [True] * 3
