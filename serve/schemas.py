"""Bodies of requests. Those of responses are in `lexray.api`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lexray.api import Modality

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class ApiRequest(BaseModel):
    """Base of all requests; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class EventsRequest(ApiRequest):
    """An event list as JSON."""

    time: list[FiniteFloat] = Field(min_length=1, description="arrival times in s, sorted, from any zero")
    energy: list[FiniteFloat] = Field(min_length=1, description="keV, one for each time")
    gti: list[tuple[FiniteFloat, FiniteFloat]] = Field(
        min_length=1, description="good-time intervals [start, stop] in s, on the clock of `time`"
    )
    mission: str = Field("chandra", description="decides the energy bands: chandra, xmm, nustar, nicer …")
    exposure: FiniteFloat | None = Field(None, gt=0, description="s; by default the sum of the good-time intervals")
    source_id: str = Field("", max_length=200, description="your name of the source")

    @model_validator(mode="after")
    def _consistent(self) -> "EventsRequest":
        if len(self.time) != len(self.energy):
            raise ValueError(f"time has {len(self.time)} values and energy {len(self.energy)}; they belong in pairs")
        if any(later < earlier for earlier, later in zip(self.time, self.time[1:], strict=False)):
            raise ValueError("time is not sorted; sort the events by their arrival times")
        if not any(stop > start for start, stop in self.gti):
            raise ValueError("gti holds no interval whose stop is after its start")
        return self


class EmbeddingsRequest(ApiRequest):
    """OpenAI's embeddings request."""

    input: str | list[str] = Field(description="a text, or a list of them")
    model: str = Field(description="'lexray', or the `model` that GET /v1/release names")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="only the release's own dimension is taken")
    user: str | None = Field(None, description="taken for compatibility, and not used")


class SearchRequest(ApiRequest):
    """A search by exactly one of `text`, `events` and `vector`."""

    text: str | None = Field(None, description="a sentence")
    events: EventsRequest | None = Field(None, description="an event list")
    vector: list[FiniteFloat] | None = Field(None, description="a vector of the release's space")
    k: int = Field(10, ge=1, description="how many sources")
    modality: Modality | None = Field(
        None, description="compare with X-ray vectors ('xray') or text vectors ('text') only; by default with both"
    )

    @model_validator(mode="after")
    def _one_query(self) -> "SearchRequest":
        given = [name for name in ("text", "events", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of text, events and vector, got {' and '.join(given) or 'none'}")
        return self
