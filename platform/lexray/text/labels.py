"""The words that a source, its variability and its spectrum are labelled with."""

from typing import Literal

#: What a source is, from the particular to the general where classes overlap.
ObjectClass = Literal[
    "AGN", "galaxy", "galaxy cluster", "ULX", "HMXB", "LMXB", "X-ray binary", "black hole", "magnetar", "neutron star",
    "CV", "supernova remnant", "supernova", "gamma-ray burst", "tidal disruption event", "young star", "low-mass star",
    "high-mass star", "star", "unknown",
]  # fmt: skip
Variability = Literal[
    "steady", "flaring", "periodic", "dipping", "eclipsing", "irregular", "transient", "variable", "unknown"
]  # fmt: skip
SpectralShape = Literal[
    "power law", "blackbody", "thermal plasma", "power law and thermal", "supersoft", "line-dominated", "unknown"
]  # fmt: skip
Confidence = Literal["low", "medium", "high"]
#: What there are labels of.
LabelKind = Literal["object_class", "variability", "spectral_shape"]
UNKNOWN = "unknown"
