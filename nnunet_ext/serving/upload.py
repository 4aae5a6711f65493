"""Stores the files of an upload in the folder of its request, under names that the server chooses.

A request is `multipart/form-data` with one file per channel; the name of the field is the channel's number, `0000`,
`0001` and so on, as in nnU-Net's file names. Of the name that the sender gave a file only the ending is looked at.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from nnunet_ext.serving.refusal import Refusal
from nnunet_ext.serving.worker import CASE

MOST_PART_HEADER_BYTES = 4096
_CHANNEL = re.compile(rb"\d{4}")


async def store_upload(
    content_type: str, body: AsyncIterator[bytes], folder: Path, *, ending: str, most_bytes: int
) -> list[Path]:
    """Writes the files of an upload as `case_0000<ending>`, `case_0001<ending>` and so on.

    Args:
        content_type: header of the request.
        body: of the request, in chunks as they arrive.
        folder: an existing, empty folder.
        ending: file ending of the dataset, which every file must have.
        most_bytes: longest body.

    Returns:
        The files in the order of the channels.

    Raises:
        Refusal: if the body is too long, or not such a form.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise _not_a_form("another content type")
    files = ChannelFiles(folder, ending)
    try:
        parser = MultipartParser(options[b"boundary"], files.callbacks())
        received = 0
        async for chunk in body:
            received += len(chunk)
            if received > most_bytes:
                raise Refusal(413, f"An upload may have {most_bytes} bytes (--max-upload); this one has more.")
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _not_a_form("a form that cannot be read") from error
    finally:
        files.close()
    if not files.is_whole or not files.paths:
        raise _not_a_form("no complete file")
    return [files.paths[channel] for channel in sorted(files.paths)]


def _not_a_form(found: str) -> Refusal:
    return Refusal(
        400, f"A case is sent as multipart/form-data; found {found}. Use curl -F 0000=@FILE -F 0001=@FILE URL."
    )


class ChannelFiles:
    """Takes the parts of a form as they are parsed, and writes each into its file.

    Attributes:
        paths: number of the channel to its file.
        is_whole: whether the end of the form was seen.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder = folder
        self.ending = ending
        self.paths: dict[bytes, Path] = {}
        self.is_whole = False
        self._file: BinaryIO | None = None
        self._header = [b"", b""]  # name and value
        self._disposition = b""

    def callbacks(self) -> Any:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._add_to_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add_to_header(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open_file,
            "on_part_data": self._write,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def close(self) -> None:
        """Closes the file of the last part."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_part(self) -> None:
        self._header, self._disposition = [b"", b""], b""

    def _add_to_header(self, position: int, data: bytes) -> None:
        self._header[position] += data
        if len(self._header[position]) > MOST_PART_HEADER_BYTES:
            raise _not_a_form("a very long header of a part")

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _open_file(self) -> None:
        _, options = parse_options_header(self._disposition)
        channel, name = options.get(b"name", b""), options.get(b"filename", b"")
        if not _CHANNEL.fullmatch(channel):
            raise _not_a_form("a field whose name is not four digits")
        if not name.lower().endswith(self.ending.lower().encode()):
            raise Refusal(422, f"The files of this model end with {self.ending}; found another ending.")
        if channel in self.paths:
            raise _not_a_form(f"two files for channel {channel.decode()}")
        self.paths[channel] = self.folder / f"{CASE}_{channel.decode()}{self.ending}"
        self._file = self.paths[channel].open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self.is_whole = True
