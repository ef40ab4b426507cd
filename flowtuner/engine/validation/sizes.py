"""`validation_resolution`: an edge, WxH, megapixels, or a list of them."""

from __future__ import annotations

import math

from flowtuner.errors import ConfigError, Fault

MEGAPIXELS_BELOW = 128
ALLOWED = "an edge (1024), a size (1280x832), megapixels below 128 (1, 0.5), or a list of these with commas"


def parse_resolutions(text: str | float, alignment: int = 64) -> list[tuple[int, int]]:
    """Sizes as (width, height); WxH and edges are literal, megapixels become a square of whole `alignment`s."""
    parts = [part.strip().lower() for part in str(text).split(",") if part.strip()]
    if not parts:
        raise _refuse(text, "it names no size")
    return list(dict.fromkeys(_parse(part, alignment) for part in parts))


def _parse(part: str, alignment: int) -> tuple[int, int]:
    try:
        if "x" in part:
            width, height = (int(edge) for edge in part.split("x"))
        else:
            width = height = _edge(float(part), alignment)
    except (ValueError, OverflowError) as error:
        raise _refuse(part, "it is not a size") from error
    if width <= 0 or height <= 0:
        raise _refuse(part, "a size is positive")
    return width, height


def _edge(number: float, alignment: int) -> int:
    if number >= MEGAPIXELS_BELOW or number <= 0:
        return int(number)
    return max(round(math.sqrt(number) * 1024 / alignment), 1) * alignment


def _refuse(value: object, problem: str) -> ConfigError:
    return ConfigError([Fault("validation_resolution", value, "", problem, ALLOWED)])
