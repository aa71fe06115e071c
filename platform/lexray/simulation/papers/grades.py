"""Words for quantities: graded vocabularies in which simulated papers speak of what X-ray data show.

A vocabulary is a list of upper limits and, for each grade, alternatives in the notation of `grammar.expand`.
"""

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class GradedWords:
    """Words by grade.

    Attributes
    ----------
    limits : tuple of float
        Between consecutive grades, increasing.
    words : tuple of str
        One more than there are limits.
    """

    limits: tuple[float, ...]
    words: tuple[str, ...]

    def word(self, value: float) -> str:
        """Alternatives for a value."""
        return self.words[bisect_right(self.limits, value)]


#: log10 of the count rate between 0.5 and 7 keV.
BRIGHTNESS = GradedWords(
    (-2.45, -2.05, -1.70, -1.30),
    (
        "{very faint|extremely faint|barely detected|only marginally detected}",
        "{faint|dim|rather faint|quite faint}",
        "{moderately bright|medium-bright|modestly bright|fairly average}",
        "{bright|clearly detected and bright|strong}",
        "{very bright|exceptionally bright|remarkably bright|extremely bright}",
    ),
)

#: What the photons suffice for, by the same count rate.
STATISTICS = GradedWords(
    BRIGHTNESS.limits,
    (
        "{only a handful of photons|hardly any photons|too few counts for a spectral fit}",
        "{few photons|a small number of counts|poor photon statistics}",
        "{enough photons for a simple spectral fit|a fair number of counts|average photon statistics}",
        "{many photons|a large number of counts|good photon statistics}",
        "{a wealth of photons|superb photon statistics|a huge number of counts}",
    ),
)

#: Hardness ratio (H − S)/(H + S).
HARDNESS = GradedWords(
    (-0.80, -0.35, 0.25, 0.75),
    (
        "{very soft|extremely soft|supersoft-like|exceptionally soft}",
        "{soft|rather soft|fairly soft}",
        "{moderately hard|medium-hard|intermediate|balanced, broad-band}",
        "{hard|rather hard|fairly hard}",
        "{very hard|extremely hard|exceptionally hard}",
    ),
)

#: Where the photons lie, by the same ratio.
PHOTONS = GradedWords(
    HARDNESS.limits,
    (
        "{almost all|nearly all|the vast majority of} photons {have energies|are detected|fall} below 1.2 keV",
        "most {of the counts|photons} are {soft|detected below 1.5 keV|found at low energies}",
        "photons are {spread evenly over|distributed across|detected throughout} the 0.5-7 keV band",
        "most {of the counts|photons} are {hard|detected above 2 keV|found at high energies}",
        "{almost all|nearly all|the vast majority of} photons {have energies|are detected|fall} above 2 keV",
    ),
)

#: Column density in 1e22 cm⁻².
ABSORPTION = GradedWords(
    (0.04, 0.3, 1.5),
    (
        "{negligible|hardly any|very little|almost no}",
        "{modest|low|mild|moderate}",
        "{substantial|considerable|significant|appreciable}",
        "{heavy|strong|very high|severe}",
    ),
)

#: Fractional rms within an observation.
AMPLITUDE = GradedWords(
    (0.25, 0.45, 0.75),
    (
        "{mild|low-amplitude|weak|subtle|small}",
        "{moderate|noticeable|intermediate-amplitude}",
        "{strong|large-amplitude|pronounced|marked}",
        "{extreme|dramatic|very large|spectacular}",
    ),
)

#: A timescale over an observation's length.
TIMESCALE = GradedWords(
    (0.02, 0.09, 0.20, 0.40),
    (
        "{far shorter than the exposure|too short to be followed in a binned light curve|of the shortest kind}",
        "{short compared with the exposure|only a small fraction of the observation|brief}",
        "{about a tenth of the observation|a modest fraction of the exposure|well sampled by the exposure}",
        "{about a quarter of the observation|a large fraction of the exposure}",
        "{comparable to the whole observation|nearly as long as the exposure|barely covered by one observation}",
    ),
)

#: Scatter of the flux between observations, in decades.
LONG_TERM = GradedWords(
    (0.04, 0.12, 0.25),
    (
        "{stable|constant|unchanged} between {epochs|observations|visits}",
        "{slightly|modestly|somewhat} different between {epochs|observations|visits}",
        "different by {about a factor of two|a factor of nearly two} between {epochs|observations|visits}",
        "{strongly|dramatically|very} different between {epochs|observations}",
    ),
)

#: Observed flux, log10 of erg cm⁻² s⁻¹ between 0.5 and 7 keV.
FLUX = GradedWords(
    (-13.6, -13.1, -12.6, -12.1),
    (
        "{very low|tiny}",
        "{low|small}",
        "{moderate|intermediate}",
        "{high|large}",
        "{very high|very large}",
    ),
)
