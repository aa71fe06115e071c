"""Unpack a gzipped FITS file, up to a limit."""

import zlib

from lexray.errors import RefusedInput

_GZIP_MAGIC = b"\x1f\x8b"
#: A gzip stream that grows past this is no event file: the longest observations stay below 2 GB.
MAX_BYTES = 8 << 30
#: Event files shrink to a third; a large stream that grows to so many times its size is a decompression bomb.
_MAX_GROWTH, _LARGE = 200, 256 << 20
_CHUNK = 64 << 20


def unpack(content: bytes, limit: int = MAX_BYTES) -> bytes:
    """The file itself; gunzipped where it is gzipped, whatever its name says.

    Raises
    ------
    RefusedInput
        'truncated' or 'bad_gzip' where the stream is cut or damaged, 'too_large' where it grows beyond `limit` bytes.
    """
    if not content.startswith(_GZIP_MAGIC):
        return content
    pieces: list[bytes] = []
    limit = min(limit, max(_MAX_GROWTH * len(content), _LARGE))
    size = 0
    try:
        while content.startswith(_GZIP_MAGIC):  # a gzip file may have several members
            stream = zlib.decompressobj(wbits=31)
            while content and not stream.eof:
                pieces.append(stream.decompress(content, _CHUNK))
                content = stream.unconsumed_tail
                size += len(pieces[-1])
                if size > limit:
                    raise RefusedInput("too_large", f"the gzip stream grows beyond {limit} bytes")
            if not stream.eof:
                raise RefusedInput("truncated", "the gzip stream ends before its end mark")
            content = stream.unused_data
    except zlib.error as error:
        raise RefusedInput("bad_gzip", f"the gzip stream is damaged: {error}") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
