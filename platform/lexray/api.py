"""What the service answers, as typed objects: the service fills them, the client reads them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Modality = Literal["xray", "text"]


class ApiResponse(BaseModel):
    """Base of all answers. Fields that a newer service adds are ignored by an older client."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True, allow_inf_nan=False)


class Source(ApiResponse):
    """A source that was found."""

    source_id: str
    score: float = Field(description="cosine between the query and the nearest of the source's vectors, -1 to 1")
    scores: dict[str, float] = Field(description="best cosine by modality, 'xray' and 'text', as far as asked for")
    summary: str | None = Field(None, description="what the literature says of it")
    source_class: str | None = Field(None, alias="class", description="its class, where it is labelled")
    labels: dict[str, float | str | bool | None] = Field(default_factory=dict, description="its other labels")
    bibcodes: list[str] = Field(default_factory=list, description="papers behind the summary")
    missions: list[str] = Field(default_factory=list)
    n_detections: int | None = None
    n_events: int | None = Field(None, description="photons of all its detections")
    exposure: float | None = Field(None, description="seconds, all its detections together")
    ra: float | None = Field(None, description="degrees, ICRS")
    dec: float | None = Field(None, description="degrees, ICRS")


class SearchResponse(ApiResponse):
    """Sources, best first."""

    release: str
    sources: list[Source]


class BandCounts(ApiResponse):
    """Photons in one energy band."""

    band: str = Field(examples=["0.5–1.2 keV"])
    low: float = Field(description="keV")
    high: float = Field(description="keV")
    counts: int
    rate: float = Field(description="counts / s of exposure")


class ReconstructedLightCurve(ApiResponse):
    """Observed and reconstructed rates on the same bins."""

    t: list[float] = Field(description="bin centres, s since t_ref")
    observed: list[list[float | None]] = Field(
        description="counts / s by band and bin, null where a bin has no good time"
    )
    reconstructed: list[list[float]] = Field(description="the autodecoder's counts / s by band and bin")


class PropertyEstimate(ApiResponse):
    """What a head says of a property."""

    value: float
    sigma: float | None = Field(None, description="error on validation sources, in dex where log10 is true")
    log10: bool = Field(False, description="whether the property was fitted as a logarithm")
    r2: float | None = Field(None, description="R² on validation sources")


class EventsResponse(ApiResponse):
    """An observation, placed in the shared space."""

    release: str
    detection_id: str
    source_id: str
    mission: str
    n_events: int
    n_dropped: int = Field(0, description="events outside the good times or the energy bands, not used")
    ontime: float = Field(description="s, sum of the good-time intervals")
    exposure: float = Field(description="s, ontime × live fraction")
    flags: list[str] = Field(
        default_factory=list,
        description="of the file, and by what the observation is unlike the training's (where known)",
    )
    anomaly: float | None = Field(None, description="nat, how improbable photons and representation are")
    p_value: float | None = Field(None, description="share of simulated detections that are as anomalous")
    counts: list[BandCounts]
    embedding: list[float] = Field(description="unit vector in the shared space")
    classes: dict[str, float] = Field(default_factory=dict, description="calibrated probability of each class")
    properties: dict[str, PropertyEstimate] = Field(default_factory=dict)
    nearest: list[Source] = Field(description="the sources most like it, best first")
    light_curve: ReconstructedLightCurve


class Embedding(ApiResponse):
    """One vector, in OpenAI's form."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="numbers, or base64 of little-endian float32")


class Usage(ApiResponse):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(ApiResponse):
    """OpenAI's embeddings response."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ReleaseResponse(ApiResponse):
    """The release in service."""

    release: str
    model: str = Field(description="name to give as `model` to /v1/embeddings")
    lexray: str
    created: str
    dimension: int
    n_bands: int
    text_model: dict[str, Any]
    counts: dict[str, int]
    mlflow_runs: dict[str, str] = Field(default_factory=dict)
    classes: list[str] = Field(default_factory=list, description="classes that the heads know")


class Health(ApiResponse):
    """That the service is up."""

    status: Literal["ok"] = "ok"
    release: str


class Problem(ApiResponse):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    reason: str | None = Field(None, description="a short code, the same for every error of this cause")
