"""Compressed data, read to the end of the stream so that its checksum is verified."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from nnunet_ext.input_checks.findings import UnreadableFile

GZIP_MAGIC = b"\x1f\x8b"
COPY_AGAIN = "Copy or export the file again."
_CHUNK_BYTES = 1 << 20
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def inflate(file: BinaryIO) -> bytearray:
    """Decompresses all gzip members, or the zlib stream, that begin at the position of `file`.

    What follows the last complete member is ignored, as gzip and ITK do.

    Raises:
        UnreadableFile: The stream ends early, is damaged, or fails its checksum.
    """
    data = bytearray()
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    chunk = file.read(_CHUNK_BYTES)
    while chunk:
        try:
            data += decoder.decompress(chunk)
        except zlib.error as error:
            found = f"a damaged compressed stream ({error}, after {len(data)} bytes)"
            raise UnreadableFile(found, "a stream that agrees with its checksum", COPY_AGAIN) from error
        chunk = decoder.unused_data + file.read(_CHUNK_BYTES)
        if decoder.eof and chunk.startswith(GZIP_MAGIC):
            decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
        elif decoder.eof:
            break
    if not decoder.eof:
        found = f"a compressed stream that is truncated after {len(data)} bytes"
        raise UnreadableFile(found, "a stream with its end and its checksum", COPY_AGAIN)
    return data
