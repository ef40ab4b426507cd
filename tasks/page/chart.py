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
    smooth, raw = thin(_smoothed(finite)), thin(finite)
    low, high = _range([loss for _, loss in smooth], [loss for _, loss in raw])
    first, last = finite[0][0], finite[-1][0]

    def place(point: tuple[float, float]) -> tuple[float, float]:
        step, loss = point
        x = LEFT + (step - first) / max(1, last - first) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return x, min(max(y, TOP), HEIGHT - BOTTOM)

    picture = Image.new("RGB", (WIDTH, HEIGHT), PALETTE["paper"])
    pen = ImageDraw.Draw(picture)
    for loss in ticks(low, high):
        y = place((first, loss))[1]
        pen.line((LEFT, y, WIDTH - RIGHT, y), PALETTE["grid"])
        pen.text((LEFT - 6, y), f"{loss:g}", PALETTE["text"], anchor="rm")
    for step in ticks(first, last):
        pen.text((place((step, low))[0], HEIGHT - BOTTOM + 6), f"{step:,.0f}", PALETTE["text"], anchor="ma")
    pen.line([place(point) for point in raw], PALETTE["raw"])
    pen.line([place(point) for point in smooth], PALETTE["smooth"], width=2)
    return _png(picture)


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two others."""
    size = max((high - low) / 5, 1e-300)
    power = 10.0 ** math.floor(math.log10(size))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= size * (1 - 1e-9))
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def thin(points: Sequence[tuple[int, float]], count: int = POINTS) -> list[tuple[int, float]]:
    """Keeps about `count` points, first and last among them."""
    stride = max(1, math.ceil(len(points) / count))
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    # Divided by the weight so far: otherwise the first loss alone would shape the beginning.
    value, weight, smoothed = 0.0, 0.0, []
    for step, loss in points:
        value += SMOOTHING * (loss - value)
        weight += SMOOTHING * (1 - weight)
        smoothed.append((step, value / weight))
    return smoothed


def _range(smooth: Sequence[float], raw: Sequence[float]) -> tuple[float, float]:
    # A few outliers of the raw losses may leave the picture; the smoothed curve never does.
    ordered = sorted(raw)
    cut = len(ordered) // 50
    low, high = min(*smooth, ordered[cut]), max(*smooth, ordered[-1 - cut])
    margin = (high - low or abs(high) or 1.0) * 0.05
    return max(low - margin, 0.0) if low >= 0 else low - margin, high + margin


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.quantize(32).save(file, "PNG", optimize=True)
    return file.getvalue()
