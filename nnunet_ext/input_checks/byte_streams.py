"""Compressed data, read to the end of the stream so that its checksum is verified, and never beyond a ceiling."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from nnunet_ext.input_checks.findings import UnreadableFile

GZIP_MAGIC = b"\x1f\x8b"
COPY_AGAIN = "Copy or export the file again."
_CHUNK_BYTES = 1 << 16  # zlib copies the rest of a chunk for every gzip member in it, of which there may be thousands
_PIECE_BYTES = _SURPLUS_BYTES = 1 << 20
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def inflate(pieces: Iterator[bytes], specified_bytes: int, start: bytes = b"") -> bytearray:
    """Puts the pieces of a compressed stream together.

    A stream that is more than 1 MiB longer than it should be is not read to its end: a small file can decompress to
    more than any memory holds.

    Args:
        pieces: see `inflated_pieces`.
        specified_bytes: length of the stream by the header of the file.
        start: what was taken from `pieces` before, with `inflate_start`.

    Raises:
        UnreadableFile: The stream ends early, is damaged, fails its checksum, or is much longer than specified.
    """
    data = bytearray(start)
    for piece in pieces:
        data += piece
        if len(data) > specified_bytes + _SURPLUS_BYTES:
            found = f"a compressed stream of more than {len(data)} bytes"
            remedy = "The header is wrong, or the file was made to fill the memory: export it again."
            raise UnreadableFile(found, f"{specified_bytes} bytes, which the header specifies", remedy)
    return data


def inflate_start(pieces: Iterator[bytes], count: int) -> bytes:
    """Takes pieces until they have `count` bytes, for a header in them; fewer if the whole stream is shorter.

    Raises:
        UnreadableFile: The stream ends too early, or is damaged.
    """
    start = bytearray()
    while len(start) < count and (piece := next(pieces, None)) is not None:
        start += piece
    return bytes(start)


def inflated_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Decompresses all gzip members, or the zlib stream, that begin at the position of `file`, 1 MiB at a time.

    What follows the last complete member is ignored, as gzip and ITK do.

    Raises:
        UnreadableFile: The stream ends early, is damaged, or fails its checksum.
    """
    total = 0
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    chunk = file.read(_CHUNK_BYTES)
    while chunk:
        try:
            piece = decoder.decompress(chunk, _PIECE_BYTES)
        except zlib.error as error:
            found = f"a damaged compressed stream ({error}, after {total} bytes)"
            raise UnreadableFile(found, "a stream that agrees with its checksum", COPY_AGAIN) from error
        total += len(piece)
        yield piece
        if not decoder.eof:
            chunk = decoder.unconsumed_tail or file.read(_CHUNK_BYTES)
            continue
        chunk = decoder.unused_data
        if len(chunk) < len(GZIP_MAGIC):
            chunk += file.read(_CHUNK_BYTES)
        if not chunk.startswith(GZIP_MAGIC):
            return
        decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    if not decoder.eof:
        found = f"a compressed stream that is truncated after {total} bytes"
        raise UnreadableFile(found, "a stream with its end and its checksum", COPY_AGAIN)
