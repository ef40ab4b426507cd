"""Says which coloured shape a picture shows, by mean colour and template matching; nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from flowtuner.demo.scores import Score
from flowtuner.demo.shapes import COLOURS, SHAPES, Figure, Pixels, draw_mask

BRIGHT = 128
FEWEST_BRIGHT_PIXELS = 20
# A picture that overlaps less with its best template is a blot, not a shape.
LEAST_OVERLAP = 0.7
CENTRES = range(12, 21, 2)
RADII = (7.5, 8.5, 9.5, 10.5, 11.5)


@dataclass(frozen=True)
class Verdict:
    """What a picture shows; None where it shows nothing that counts."""

    colour: str | None
    shape: str | None


def judge(pixels: Pixels) -> Verdict:
    """Names the colour and the shape of one picture of (EDGE, EDGE, 3)."""
    bright = pixels.max(axis=2) > BRIGHT
    if bright.sum() < FEWEST_BRIGHT_PIXELS:
        return Verdict(None, None)
    return Verdict(_nearest_colour(pixels[bright].mean(axis=0)), _best_shape(bright))


def score(pictures: Sequence[Pixels], wanted: Sequence[Figure]) -> Score:
    """Compares pictures with what their prompts asked for."""
    verdicts = [judge(pixels) for pixels in pictures]
    pairs = list(zip(verdicts, wanted, strict=True))
    colours = sum(verdict.colour == figure.colour for verdict, figure in pairs)
    both = sum((verdict.colour, verdict.shape) == (figure.colour, figure.shape) for verdict, figure in pairs)
    return Score(colours / len(pairs), both / len(pairs))


def _nearest_colour(mean: NDArray[np.floating]) -> str:
    return min(COLOURS, key=lambda name: float(np.abs(mean - np.array(COLOURS[name])).sum()))


def _best_shape(bright: NDArray[np.bool_]) -> str | None:
    templates = _templates()
    picture = bright.reshape(-1).astype(np.float64)
    overlap = np.minimum(templates, picture).sum(axis=-1) / np.maximum(templates, picture).sum(axis=-1)
    best = overlap.max(axis=1)
    winner = int(best.argmax())
    return SHAPES[winner] if best[winner] > LEAST_OVERLAP else None


@lru_cache(maxsize=1)
def _templates() -> NDArray[np.float64]:
    rows = [[draw_mask(shape, x, y, r).reshape(-1) for x, y, r in product(CENTRES, CENTRES, RADII)] for shape in SHAPES]
    return np.array(rows)
