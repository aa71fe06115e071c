"""The service's answers, without HTTP and without Ray: lists of inputs in, answers out.

All methods block and use torch: the service calls them in threads, one batch at a time.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lexray.api import (
    BandCounts,
    EventsResponse,
    Modality,
    PropertyEstimate,
    ReconstructedLightCurve,
    ReleaseResponse,
    Source,
)
from lexray.array_types import Float32s, Float64s
from lexray.events.eventlist import EventList
from lexray.llm.sentence_encoder import TextTokenizer
from lexray.release.aligned import AlignedModel
from lexray.serve.observations import UploadedObservation


class TextVector(NamedTuple):
    """A text in the shared space: its vector f4[E], and how many tokens the sentence model read."""

    vector: Float32s
    tokens: int


class EncodedEvents(NamedTuple):
    """An event list in the shared space: its vector f4[E], its reconstructed rate, how far it is like the training's.

    The rate f8[B, bins] is in ct/s of good time, between edges f8[bins + 1] in seconds since `t_ref`.
    """

    vector: Float32s
    edges: Float64s
    rate: Float64s
    anomaly: float | None
    p_value: float | None
    flags: tuple[str, ...]


class ServingEngine:
    """A release, ready to answer.

    Parameters
    ----------
    aligned : AlignedModel
    """

    def __init__(self, aligned: AlignedModel) -> None:
        self.aligned = aligned
        model = aligned.text_encoder.model
        self._tokens, self._query_prefix = TextTokenizer(model.path, model.max_length), model.query_prefix

    @property
    def release(self) -> str:
        """Id of the release."""
        return self.aligned.release.id

    @property
    def model(self) -> str:
        """Name of the release's text side, for OpenAI's `model`."""
        return f"lexray-{self.release}"

    def warm(self) -> None:
        """Load everything now, so that the first caller does not wait for it."""
        self.embed_texts(["an X-ray source"])
        _ = (self.aligned.autodecoder, self.aligned.heads, self.aligned.index)

    def describe(self) -> ReleaseResponse:
        """The release, for callers."""
        heads = self.aligned.heads
        return ReleaseResponse.model_validate(
            {
                **self.aligned.release.manifest.model_dump(mode="json", exclude={"files", "inputs"}),
                "model": self.model,
                "classes": [] if heads is None else list(heads.classes),
            }
        )

    def embed_texts(self, texts: list[str]) -> list[TextVector]:
        """Vectors of texts."""
        tokens, _ = self._tokens(texts, self._query_prefix)
        vectors = self.aligned.embed_text(texts)
        return [TextVector(vector, len(ids)) for vector, ids in zip(vectors, tokens, strict=True)]

    def encode_events(self, events: list[EventList]) -> list[EncodedEvents]:
        """Vectors and reconstructed rates of event lists, from one pass of the autodecoder."""
        vectors, found, rates = self.aligned.embed_with_rates(events, bins=128)
        return [
            EncodedEvents(
                vectors[i],
                edges,
                rate,
                None if found.anomaly is None else float(found.anomaly[i]),
                None if found.p_value is None else float(found.p_value[i]),
                () if found.flags is None else found.flags[i],
            )
            for i, (edges, rate, *_) in enumerate(rates)
        ]

    def search(self, vector: ArrayLike, k: int, modality: Modality | None) -> list[Source]:
        """Sources near a vector.

        Raises
        ------
        ValueError
            As `SearchIndex.search`.
        """
        return [
            Source.model_validate({key: value for key, value in hit.as_dict().items() if value is not None})
            for hit in self.aligned.index.search(vector, k, modality)
        ]

    def observation(self, observation: UploadedObservation, encoded: EncodedEvents, k: int) -> EventsResponse:
        """Everything that the service answers on an observation."""
        events, vector = observation.events, encoded.vector
        predictions = self.aligned.predict(vector[None])
        return EventsResponse(
            release=self.release,
            detection_id=events.detection_id,
            source_id=events.source_id,
            mission=events.mission,
            n_events=len(events),
            n_dropped=observation.n_dropped,
            ontime=events.gti.ontime,
            exposure=events.exposure,
            flags=[*events.flags, *encoded.flags],
            anomaly=encoded.anomaly,
            p_value=encoded.p_value,
            counts=_counts(events),
            embedding=[float(x) for x in vector],
            classes=_classes(predictions.get("class_probabilities", {})),
            properties=self._properties(predictions.get("properties", {})),
            nearest=self.search(vector, k, None),
            light_curve=_light_curve(events, encoded),
        )

    def _properties(self, values: dict[str, Float32s]) -> dict[str, PropertyEstimate]:
        heads = self.aligned.heads
        return {
            item.name: PropertyEstimate(
                value=float(values[item.name][0]), sigma=_finite(item.sigma), log10=item.log10, r2=_finite(item.r2)
            )
            for item in (() if heads is None else heads.properties)
            if np.isfinite(values[item.name][0])
        }


def _light_curve(events: EventList, encoded: EncodedEvents) -> ReconstructedLightCurve:
    edges, rate = encoded.edges, encoded.rate
    live = events.gti.exposure(edges) * (events.exposure / events.gti.ontime)
    counts = [np.histogram(events.time[events.band == b], edges)[0] for b in range(len(events.bands))]
    observed = [[float(n / s) if s > 0 else None for n, s in zip(row, live, strict=True)] for row in counts]
    return ReconstructedLightCurve(
        t=((edges[:-1] + edges[1:]) / 2).tolist(), observed=observed, reconstructed=[row.tolist() for row in rate]
    )


def _classes(probabilities: dict[str, Float32s]) -> dict[str, float]:
    """Most probable first."""
    return dict(sorted(((name, float(p[0])) for name, p in probabilities.items()), key=lambda item: -item[1]))


def _counts(events: EventList) -> list[BandCounts]:
    number = np.bincount(events.band, minlength=len(events.bands))
    return [
        BandCounts(band=name, low=low, high=high, counts=int(n), rate=float(n) / events.exposure)
        for name, (low, high), n in zip(events.bands.names(), pairwise(events.bands.edges), number, strict=True)
    ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
