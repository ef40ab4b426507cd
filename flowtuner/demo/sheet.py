"""The demo's contact sheet: the same prompts before and after, each picture framed by its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from flowtuner.demo.shapes import Figure, Pixels

TILE = 64
FRAME = 3
CELL = TILE + 2 * FRAME + 16
LABEL = 16
TITLE = 28
GAP = 16
COLUMNS = 6
GROUND, INK = (250, 250, 250), (30, 30, 30)
RIGHT, WRONG = (40, 160, 70), (215, 60, 50)


@dataclass(frozen=True)
class Panel:
    """The pictures of one model, and which of them show what was asked for."""

    title: str
    pictures: Sequence[Pixels]
    is_right: Sequence[bool]


def save_sheet(panels: Sequence[Panel], wanted: Sequence[Figure], path: Path) -> None:
    """Draws the panels side by side and saves them."""
    rows = -(-len(wanted) // COLUMNS)
    width, height = COLUMNS * CELL, TITLE + rows * (CELL + LABEL)
    sheet = Image.new("RGB", (GAP + len(panels) * (width + GAP), height + GAP), GROUND)
    for number, panel in enumerate(panels):
        _draw_panel(sheet, panel, wanted, GAP + number * (width + GAP))
    sheet.save(path)


def _draw_panel(sheet: Image.Image, panel: Panel, wanted: Sequence[Figure], left: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    title = f"{panel.title}: {sum(panel.is_right)} of {len(wanted)} right"
    draw.text((left, 6), title, INK, ImageFont.load_default(14))
    for number, (pixels, figure, is_right) in enumerate(zip(panel.pictures, wanted, panel.is_right, strict=True)):
        x = left + number % COLUMNS * CELL
        y = TITLE + number // COLUMNS * (CELL + LABEL)
        edge = TILE + 2 * FRAME - 1
        draw.rectangle((x, y, x + edge, y + edge), outline=RIGHT if is_right else WRONG, width=FRAME)
        tile = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)
        sheet.paste(tile, (x + FRAME, y + FRAME))
        draw.text((x, y + TILE + 2 * FRAME), figure.caption.removeprefix("a "), INK, font)
