"""Both encoders of a release in one class: event lists and sentences into one space."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lexray.array_types import Float32s
from lexray.errors import LexrayError
from lexray.events.eventlist import EventList
from lexray.inference.autodecoder import Autodecoder, Encoded, RateInCells, load_autodecoder
from lexray.llm.sentence_encoder import TextEncoder
from lexray.models.alignment.heads import Heads
from lexray.models.alignment.towers import Towers
from lexray.release.index import Hit, SearchIndex
from lexray.release.manifest import ALIGNMENT, AUTODECODER_DIR, HEADS, INDEX, Release

_LOG = logging.getLogger("lexray")


@dataclass
class AlignedModel:
    """The encoders, heads and index of a release. Each is loaded when it is first asked for.

    Attributes
    ----------
    release : Release
    """

    release: Release

    @property
    def dimension(self) -> int:
        """E, the numbers of a vector."""
        return self.release.manifest.dimension

    @cached_property
    def autodecoder(self) -> Autodecoder:
        """The model of event lists."""
        return load_autodecoder(self.release.path / AUTODECODER_DIR)

    @cached_property
    def towers(self) -> Towers:
        """The two towers."""
        return Towers.load(self.release.path / ALIGNMENT)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The sentence model, checked to be the one that the text tower was trained on.

        Raises
        ------
        LexrayError
            If a model of that name has other weights here, or wants another prefix.
        """
        wanted = self.release.manifest.text_model
        encoder = TextEncoder(wanted.name)
        if encoder.sha256 != wanted.sha256:
            raise LexrayError(
                f"release {self.release.id}: its text model {wanted.name} has weights of sha256 {wanted.sha256[:12]}…, "
                f"the one installed here {encoder.sha256[:12]}…; install the same, or build a release with this one"
            )
        if encoder.model.query_prefix != wanted.query_prefix:
            raise LexrayError(
                f"release {self.release.id}: its text model {wanted.name} puts {wanted.query_prefix!r} before a query, "
                f"the one installed here {encoder.model.query_prefix!r}; install the same, or build a release with this"
            )
        return encoder

    @cached_property
    def heads(self) -> Heads | None:
        """The heads for classes and properties; None where the release was built without labels."""
        try:
            return Heads.load(self.release.path / HEADS) if (self.release.path / HEADS).is_dir() else None
        except (FileNotFoundError, ValueError) as error:
            raise LexrayError(str(error)) from error

    @cached_property
    def index(self) -> SearchIndex:
        """The sources that can be found."""
        return SearchIndex.open(self.release.path / INDEX)

    def embed_with_rates(self, events: list[EventList], bins: int) -> tuple[Float32s, Encoded, list[RateInCells]]:
        """`embed_events`, the representations behind it and the reconstructed rates, from one pass of the autodecoder.

        Raises
        ------
        LexrayError
            As `embed_events`.
        """
        self._check_bands(events)
        fit, rates = self.autodecoder.encode_with_rates(events, bins)
        return self.towers.embed_xray(fit.latent, fit.log_rate), fit, rates

    def _check_bands(self, events: list[EventList]) -> None:
        for item in events:
            if len(item.bands) != self.autodecoder.n_bands:
                raise LexrayError(
                    f"{item.detection_id}: {len(item.bands)} energy bands, this release was trained on "
                    f"{self.autodecoder.n_bands}"
                )

    def embed_events(self, events: list[EventList]) -> Float32s:
        """Unit vectors f4[N, E] of N event lists in the shared space.

        Raises
        ------
        LexrayError
            If an event list has another number of bands than the autodecoder.
        """
        if not events:
            return self._nothing()
        self._check_bands(events)
        fit = self.autodecoder.encode(events)
        return self.towers.embed_xray(fit.latent, fit.log_rate)

    def embed_text(self, texts: list[str]) -> Float32s:
        """Unit vectors f4[N, E] of N sentences, which ask for sources, in the shared space."""
        return self.towers.embed_text(self.text_encoder.encode(texts, "query")) if texts else self._nothing()

    def search(self, query: str | EventList, k: int = 10, modality: str | None = None) -> list[Hit]:
        """The k sources nearest to a sentence or to an observation; see `SearchIndex.search`.

        Raises
        ------
        LexrayError
            If the sentence is empty, or as `embed_events`.
        """
        if isinstance(query, str) and not query.strip():
            raise LexrayError("the query is empty; give a sentence or an event file")
        vector = self.embed_text([query]) if isinstance(query, str) else self._embed_with_warning(query)
        return self.index.search(vector[0], k, modality)

    def _embed_with_warning(self, events: EventList) -> Float32s:
        """`embed_events` of one; what is found of an observation unlike the training is to be doubted."""
        self._check_bands([events])
        fit = self.autodecoder.encode([events])
        if fit.flags is not None and fit.flags[0]:
            _LOG.warning("%s: unlike what the autodecoder saw: %s", events.detection_id, ", ".join(fit.flags[0]))
        return self.towers.embed_xray(fit.latent, fit.log_rate)

    def predict(self, embedding: Float32s) -> dict[str, Any]:
        """What the heads say of X-ray vectors f4[N, E]: see `Heads.predict`; empty where there are none."""
        return {} if self.heads is None else self.heads.predict(embedding)

    def _nothing(self) -> Float32s:
        return np.zeros((0, self.dimension), dtype=np.float32)


def load_aligned(path_or_release: str | Path | Release) -> AlignedModel:
    """Encoders of a release, to embed event lists and sentences in one space.

    Parameters
    ----------
    path_or_release : str, Path or Release
        A release's folder, whose files are verified, or one that is open.

    Raises
    ------
    LexrayError
        As `Release.open`.
    """
    return AlignedModel(path_or_release if isinstance(path_or_release, Release) else Release.open(path_or_release))
