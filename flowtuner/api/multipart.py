"""Reads a multipart body as it comes: fields into memory, files straight onto the disk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from flowtuner.api.errors import ApiError

FIELD_BYTES = 64 << 10
FIELDS = 1000


@dataclass
class Body:
    """What a body held: fields by name, and how many bytes of files."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    received: int = 0


async def read_multipart(
    request: Request, open_file: Callable[[str, str], Path], file_bytes: int, request_bytes: int
) -> Body:
    """Reads to the end; `open_file(field, name)` says where a file goes, or raises."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApiError(415, "not_multipart", "Send the files as multipart/form-data, as `curl -F` does")
    body = Body()
    reader = _Reader(body, open_file, file_bytes)
    parser = MultipartParser(options[b"boundary"], reader.callbacks())  # type: ignore[arg-type]
    try:
        async for chunk in _limited(request.stream(), request_bytes, body):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise ApiError(400, "broken_body", f"The body is no complete form: {error}") from error
    finally:
        reader.close()
    if not reader.is_complete:
        raise ApiError(400, "broken_body", "The body ended before the form did")
    return body


async def _limited(stream: AsyncIterator[bytes], most: int, body: Body) -> AsyncIterator[bytes]:
    async for chunk in stream:
        body.received += len(chunk)
        if body.received > most:
            raise ApiError(413, "request_too_large", f"One request may bring {most >> 20} MiB")
        yield chunk


class _Reader:
    """The parser's callbacks: one part at a time."""

    def __init__(self, body: Body, open_file: Callable[[str, str], Path], file_bytes: int) -> None:
        self._body = body
        self._open_file = open_file
        self._file_bytes = file_bytes
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[str, bytes] = {}
        self._name = ""
        self._text = bytearray()
        self._file: BinaryIO | None = None
        self._written = 0
        self.is_complete = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._take,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def close(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._headers, self._text, self._written = {}, bytearray(), 0

    def _end_header(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            name = options[b"filename"].decode("utf-8", "replace")
            self._file = self._open_file(self._name, name).open("wb")
            self._body.files.append(name)
        elif len(self._body.fields) >= FIELDS:
            raise ApiError(413, "too_many_fields", f"A form may have {FIELDS} fields")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._text.extend(data[start:end])
            if len(self._text) > FIELD_BYTES:
                raise ApiError(413, "field_too_large", f"A field may have {FIELD_BYTES} bytes")
            return
        self._written += end - start
        if self._written > self._file_bytes:
            raise ApiError(413, "file_too_large", f"One file may have {self._file_bytes >> 20} MiB")
        self._file.write(data[start:end])

    def _end(self) -> None:
        if self._file is None:
            self._body.fields[self._name] = self._text.decode("utf-8", "replace")
        self.close()

    def _finish(self) -> None:
        self.is_complete = True
