"""Strip LaTeX and HTML from abstracts without moving a character, so that matches keep their place in the text."""

import re

_MARKUP = re.compile(
    r"\\(?:[a-zA-Z]+|[,;:!/ ])"  # \pm, \rm, \,
    r"|[${}]"
    r"|</?(?:SUP|SUB|sup|sub|i|b|em|I|B|EM)>"  # as the Astrophysics Data System writes exponents
    r"|(?<=[A-Za-z0-9.}])~(?=[A-Za-z0-9\\$])"  # a space that does not break; elsewhere '~' means about
    r"|[−\u2010\u2011\u00a0\u2009\u202f]"
)
_SIGNS = {
    "pm": "±", "times": "×", "cdot": "·", "odot": "⊙", "circ": "°", "prime": "′", "degr": "°", "deg": "°",
    "sim": "~", "approx": "~", "simeq": "~", "gtrsim": ">", "lesssim": "<", "ge": ">", "le": "<", "geq": ">",
    "leq": "<", "gt": ">", "lt": "<", "fs": ".", "farcs": ".", "fd": ".", "arcsec": "″", "arcmin": "′",
    "percent": "%", "sigma": "σ", "mu": "μ", "alpha": "α", "delta": "δ", "Gamma": "Γ", "gamma": "γ", "chi": "χ",
    "eta": "η", "beta": "β", "omega": "ω", "Omega": "Ω", "theta": "θ", "lambda": "λ",
}  # fmt: skip
_ALONE = {"−": "-", "\u2010": "-", "\u2011": "-", "<sup>": "^", "<sub>": "_"}
_ANY = re.compile(r"[\\${}<~−\u2010\u2011\u00a0\u2009\u202f]")


def strip_markup(text: str) -> str:
    """Text of the same length with markup replaced by the sign it stands for, or by spaces.

    >>> strip_markup(r"$62.0 \\pm 2.5$ d in M\\,82")
    ' 62.0 ±   2.5  d in M  82'
    """
    return _MARKUP.sub(_plain, text) if _ANY.search(text) else text


def _plain(match: re.Match[str]) -> str:
    found = match.group()
    sign = _SIGNS.get(found[1:], " ") if found[0] == "\\" else _ALONE.get(found.lower(), " ")
    return sign.ljust(len(found))
