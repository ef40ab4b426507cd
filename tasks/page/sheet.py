"""The validation contact sheet and films, small enough to live in Prefect's database."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageSequence

LIMIT_BYTES = 150_000  # 200 KB once it is base64
FIRST_EDGE = 1024
SMALLEST_EDGE = 128
FIRST_FILM_EDGE = 384
SMALLEST_FILM_EDGE = 64
MOST_FILMS = 4


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


def shrink_films(paths: Sequence[Path], limit: int = LIMIT_BYTES) -> list[bytes]:
    """The first few films as GIFs that together take at most `limit` bytes; those that are gone are left out."""
    present = [path for path in paths if path.is_file()][:MOST_FILMS]
    return [_shrink_film(path, limit // len(present)) for path in present]


def _shrink_film(path: Path, limit: int) -> bytes:
    with Image.open(path) as film:
        shown_ms = int(film.info.get("duration", 100))
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    edge = min(FIRST_FILM_EDGE, max(frames[0].size))
    while True:
        size = tuple(max(1, side * edge // max(frames[0].size)) for side in frames[0].size)
        small = [frame.resize(size) for frame in frames]
        file = io.BytesIO()
        small[0].save(file, "GIF", save_all=True, append_images=small[1:], duration=shown_ms, loop=0)
        if file.tell() <= limit or (edge <= SMALLEST_FILM_EDGE and len(frames) < 3):
            return file.getvalue()
        if edge > SMALLEST_FILM_EDGE:
            edge = edge * 3 // 4
        else:
            frames, shown_ms = frames[::2], shown_ms * 2  # as long as before, less smooth
