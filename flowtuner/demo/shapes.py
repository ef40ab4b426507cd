"""Draws coloured shapes with captions: a data set whose every picture can be judged without a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EDGE = 32
COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (255, 0, 0),
        "green": (0, 255, 0),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
        "magenta": (255, 0, 255),
        "cyan": (0, 255, 255),
    }
)
SHAPES = ("circle", "square", "triangle")

# Wide enough that the model has to learn what a shape is, narrow enough for minutes on a CPU.
SHIFT_PX = 2.0
RADIUS_PX = (8.5, 10.5)

Mask = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Figure:
    """One colour and one shape; its caption is the prompt that should bring it forth."""

    colour: str
    shape: str

    @property
    def caption(self) -> str:
        """What the picture is called in the data set."""
        return f"a {self.colour} {self.shape}"


def every_figure() -> tuple[Figure, ...]:
    """All combinations of the known colours and shapes."""
    return tuple(Figure(colour, shape) for colour, shape in product(COLOURS, SHAPES))


def draw(figure: Figure, x: float = EDGE / 2, y: float = EDGE / 2, radius: float = 9.5) -> Pixels:
    """Draws a figure on black with soft edges; the pixels are (EDGE, EDGE, 3)."""
    mask = draw_mask(figure.shape, x, y, radius)
    colour = np.array(COLOURS[figure.colour])
    pixels: Pixels = np.rint(mask[..., None] * colour).astype(np.uint8)
    return pixels


def draw_mask(shape: str, x: float, y: float, radius: float) -> Mask:
    """How much of each pixel a shape covers, 0 to 1."""
    rows, columns = np.indices((EDGE, EDGE)) + 0.5
    covered: Mask = np.clip(0.5 - _distance(shape, columns - x, rows - y, radius), 0, 1)
    return covered


def draw_many(count: int, seed: int) -> Iterator[tuple[Figure, Pixels]]:
    """Yields figures in turn, each at a place and of a size drawn from the seed."""
    random = np.random.default_rng(seed)
    for figure in islice(cycle(every_figure()), count):
        x, y = EDGE / 2 + random.uniform(-SHIFT_PX, SHIFT_PX, 2)
        yield figure, draw(figure, x, y, random.uniform(*RADIUS_PX))


def write_dataset(folder: Path, count: int, seed: int) -> Path:
    """Writes PNG files with a caption in a .txt file beside each; the same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (figure, pixels) in enumerate(draw_many(count, seed)):
        name = f"{figure.colour}_{figure.shape}_{number:04d}"
        Image.fromarray(pixels).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(figure.caption + "\n", encoding="utf-8")
    return folder


def _distance(shape: str, x: Mask, y: Mask, radius: float) -> Mask:
    # Signed distances to the edge: negative inside.
    distance: Mask
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - radius * 0.85
    else:
        distance = np.maximum(y - radius * 0.75, (2 * np.abs(x) - y - radius) / math.sqrt(5))
    return distance
