"""The square that stands for a destination in lists of blocks, drawn here so that it needs no network."""

from __future__ import annotations

import base64
import struct
import zlib

SIDE, FRAME = 96, 12

Colour = tuple[int, int, int]


def draw_logo(colour: Colour) -> str:
    """A coloured square with a white frame, as the address of a picture that stands in the address itself."""
    frame, side = bytes([255] * 3), SIDE - 2 * FRAME
    empty, filled = frame * SIDE, frame * FRAME + bytes(colour) * side + frame * FRAME
    rows = [b"\0" + row for row in [empty] * FRAME + [filled] * side + [empty] * FRAME]
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
