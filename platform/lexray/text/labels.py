"""The labels of a source: its class, its variability and the shape of its spectrum."""

from typing import Literal

#: Classes of sources; where they overlap, the more specific comes first.
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
#: Properties that have labels.
LabelCategory = Literal["object_class", "variability", "spectral_shape"]
UNKNOWN = "unknown"
