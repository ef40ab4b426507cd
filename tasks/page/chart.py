"""The loss curve as a small picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 24
POINTS = 600
SMOOTHING = 0.08
PALETTE = {"paper": "#ffffff", "grid": "#dddddd", "text": "#555555", "raw": "#b8cbe8", "smooth": "#1f4e9c"}


def draw_curve(points: Sequence[tuple[int, float]]) -> bytes | None:
    """Draws losses over steps, raw and smoothed, as a PNG; None when there is nothing to draw."""
    finite = [(step, loss) for step, loss in points if math.isfinite(loss)]
    if len(finite) < 2:
        return None
    smooth = thin(_smoothed(finite))
    raw = thin(finite)
    low, high = _range([loss for _, loss in smooth])
    first, last = finite[0][0], finite[-1][0]

    def place(point: tuple[int, float]) -> tuple[float, float]:
        step, loss = point
        x = LEFT + (step - first) / max(1, last - first) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return x, min(max(y, TOP), HEIGHT - BOTTOM)

    picture = Image.new("RGB", (WIDTH, HEIGHT), PALETTE["paper"])
    pen = ImageDraw.Draw(picture)
    for part in range(5):
        loss = low + (high - low) * part / 4
        y = place((first, loss))[1]
        pen.line((LEFT, y, WIDTH - RIGHT, y), PALETTE["grid"])
        pen.text((4, y - 6), f"{loss:.4g}", PALETTE["text"])
    for step in sorted({first, (first + last) // 2, last}):
        x = place((step, low))[0]
        pen.text((min(x, WIDTH - 40), HEIGHT - BOTTOM + 6), str(step), PALETTE["text"])
    pen.line([place(point) for point in raw], PALETTE["raw"])
    pen.line([place(point) for point in smooth], PALETTE["smooth"], width=2)
    return _png(picture)


def thin(points: Sequence[tuple[int, float]], count: int = POINTS) -> list[tuple[int, float]]:
    """Keeps about `count` points, first and last among them."""
    stride = max(1, math.ceil(len(points) / count))
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    value, smoothed = points[0][1], []
    for step, loss in points:
        value += SMOOTHING * (loss - value)
        smoothed.append((step, value))
    return smoothed


def _range(losses: Sequence[float]) -> tuple[float, float]:
    low, high = min(losses), max(losses)
    margin = (high - low or abs(high) or 1.0) * 0.15
    return low - margin, high + margin


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.quantize(32).save(file, "PNG", optimize=True)
    return file.getvalue()
