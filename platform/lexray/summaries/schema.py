"""What a language model has to answer: a JSON object of bounded length, which the engine's decoding enforces.

Every text is bounded and of characters that JSON writes as they are, one byte each. So the longest answer has a known
number of bytes, and no tokenizer needs more tokens than bytes: with `MAX_TOKENS` no answer is ever cut off.
"""

import json
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lexray.errors import RefusedInput
from lexray.text.labels import Confidence, LabelCategory, ObjectClass, SpectralShape, Variability

#: Of English prose, which 1,200 characters hold with some to spare.
MAX_WORDS, MAX_CHARACTERS = 150, 1200
MAX_QUANTITIES = 6
#: Printable ASCII without the quotation mark and the backslash, which JSON would escape.
_PLAIN = r"^[ !#-\[\]-~]{1,%d}$"
_Prose = Annotated[str, StringConstraints(pattern=_PLAIN % MAX_CHARACTERS)]
_MAX_CHARACTERS_OF = {"name": 48, "value": 32, "unit": 24}
_Name = Annotated[str, StringConstraints(pattern=_PLAIN % _MAX_CHARACTERS_OF["name"])]
_Value = Annotated[str, StringConstraints(pattern=_PLAIN % _MAX_CHARACTERS_OF["value"])]
_Unit = Annotated[str, StringConstraints(pattern=_PLAIN % _MAX_CHARACTERS_OF["unit"])]


class Quantity(BaseModel):
    """A measured number, with the paper that gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Name = Field(description="what was measured, such as 'orbital period'")
    value: _Value = Field(description="the number as the paper gives it, such as '62.0' or '4.7e39'")
    unit: _Unit = Field(description="such as 'erg/s'; '-' where it has none")
    paper: Annotated[str, StringConstraints(pattern=r"^P[1-9][0-9]?$")] = Field(description="the paper's label")

    @property
    def number(self) -> int:
        """Of the paper among those that were read, from 0."""
        return int(self.paper[1:]) - 1


class SourceSummary(BaseModel):
    """What papers say of one source's physics."""

    # The schema is part of every stored summary's key: its words stay, title included, or all would be written again.
    model_config = ConfigDict(title="Answer", extra="forbid", frozen=True)

    summary: _Prose
    object_class: ObjectClass
    variability: Variability
    spectral_shape: SpectralShape
    key_quantities: Annotated[list[Quantity], Field(max_length=MAX_QUANTITIES)]
    confidence: Confidence

    @property
    def words(self) -> int:
        """Of the summary."""
        return len(self.summary.split())

    @property
    def labels(self) -> dict[LabelCategory, str]:
        """The three words that it chose, by their keys."""
        return {
            "object_class": self.object_class,
            "variability": self.variability,
            "spectral_shape": self.spectral_shape,
        }


def parse_summary(text: str) -> SourceSummary:
    """The answer in an engine's text.

    Raises
    ------
    RefusedInput
        'invalid_answer', naming what is wrong, where it is not what the schema asks for.
    """
    try:
        return SourceSummary.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "answer"
        raise RefusedInput("invalid_answer", f"{place}: {first['msg']}"[:300]) from None


def _longest_summary_bytes() -> int:
    """Bytes of the longest answer, written without white space as the engine is made to."""

    def of(choices: Any) -> str:
        return max(map(str, get_args(choices)), key=len)

    quantity = {key: "x" * most for key, most in _MAX_CHARACTERS_OF.items()} | {"paper": "P99"}
    answer = {
        "summary": "x" * MAX_CHARACTERS,
        "object_class": of(ObjectClass),
        "variability": of(Variability),
        "spectral_shape": of(SpectralShape),
        "key_quantities": [quantity] * MAX_QUANTITIES,
        "confidence": of(Confidence),
    }
    return len(json.dumps(answer, separators=(",", ":")))


#: A string and not a dictionary: Arrow would give every dictionary of a column the same keys.
SCHEMA = json.dumps(SourceSummary.model_json_schema())
#: Enough for any answer: one more than it has bytes, for the end of text.
MAX_TOKENS = _longest_summary_bytes() + 1
