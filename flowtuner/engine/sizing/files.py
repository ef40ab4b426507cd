"""What lies on the disk already, and what a run will write there."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from flowtuner.engine.estimate import BITS, Estimate, count_checkpoint, read_header
from flowtuner.engine.formats import find_text_precision
from flowtuner.options.sections.model import UNQUANTISED

if TYPE_CHECKING:
    from flowtuner.engine.family import Family
    from flowtuner.engine.sizing.simulation import Peaks
    from flowtuner.engine.sizing.work import Work

WEIGHTS = "*.safetensors"


def count_part(family: Family, name: str, width: int) -> int:
    """What a part takes once it is loaded, `width` bytes to a number; 0 where its files are not on this disk."""
    folder = Path(family.companions).expanduser() / name
    numbers = sum(prod(shape) for file in folder.glob(WEIGHTS) for shape in read_header(file).values())
    if not name.startswith("text_encoder"):
        return numbers * width
    precision = find_text_precision(family.config, name)
    if precision in UNQUANTISED:
        return numbers * {"fp32": 4, "no_change": width}.get(precision, 2)
    return int(numbers * BITS.get(precision.partition("-")[0], 16) / 8)


def count_disk(work: Work, found: Estimate, peaks: Peaks, width: int) -> dict[str, int]:
    """What checkpoints, the release and both caches take at the most."""
    family = work.family
    config = family.config
    checkpoint = count_checkpoint(config, found)
    # One more than are kept, since the new one is written first.
    kept = (config.checkpoints_total_limit or 10) + 1
    others = [name for name in getattr(family, "parts", {}) if name != family.component]
    release = found.adapter or found.weights + sum(count_part(family, name, width) for name in others)
    row = sum(prod(shape) for shape in work.text_shapes.values()) * width
    return {
        f"{kept} checkpoints": kept * checkpoint,
        "release": release,
        "cache of pictures": prod(peaks.latent) * width * work.pixels // work.largest_pixels,
        "cache of captions": row * work.captions,
    }
