"""The key of the jobs that answer with an autodecoder which may be Lexray's own."""

from typing import Annotated

from pydantic import AfterValidator, Field

from lexray.inference.autodecoder import resolve_autodecoder

AutodecoderPath = Annotated[
    str,
    AfterValidator(resolve_autodecoder),
    Field(
        validate_default=True, description="folder of a trained autodecoder, or 'reference', which comes with Lexray"
    ),
]
