"""A contact sheet: all pictures of one validation, with their prompts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE = 192
LABEL = 34
GAP = 8
COLUMNS = 6
GROUND, INK = (250, 250, 250), (30, 30, 30)


@dataclass(frozen=True)
class Tile:
    """One picture and what stands below it."""

    image: Image.Image
    label: str


def save_sheet(tiles: Sequence[Tile], title: str, path: Path) -> None:
    """Draws the tiles in rows, each in its own proportions, and saves the sheet."""
    columns = min(len(tiles), COLUMNS)
    rows = -(-len(tiles) // columns)
    size = (GAP + columns * (TILE + GAP), LABEL + rows * (TILE + LABEL + GAP))
    sheet = Image.new("RGB", size, GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(14))
    for number, tile in enumerate(tiles):
        left = GAP + number % columns * (TILE + GAP)
        top = LABEL + number // columns * (TILE + LABEL + GAP)
        sheet.paste(_fit(tile.image), (left, top))
        lines = textwrap.wrap(tile.label, 32, max_lines=2, placeholder=" ...")
        draw.multiline_text((left, top + TILE + 3), "\n".join(lines), INK, font, spacing=2)
    sheet.save(path)


def _fit(image: Image.Image) -> Image.Image:
    scale = TILE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    # Small test pictures are shown with their pixels; large ones are smoothed.
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS)
