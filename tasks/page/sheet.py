"""The validation contact sheet, small enough to live in Prefect's database."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

LIMIT_BYTES = 150_000  # 200 KB once it is base64
FIRST_EDGE = 1024
SMALLEST_EDGE = 128


def shrink(path: Path, limit: int = LIMIT_BYTES) -> bytes:
    """The picture as a JPEG of at most `limit` bytes."""
    with Image.open(path) as picture:
        picture.load()
        whole = picture.convert("RGB")
    edge = min(FIRST_EDGE, max(whole.size))
    while True:
        small = whole.copy()
        small.thumbnail((edge, edge))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=80)
        if file.tell() <= limit or edge <= SMALLEST_EDGE:
            return file.getvalue()
        edge = edge * 3 // 4
