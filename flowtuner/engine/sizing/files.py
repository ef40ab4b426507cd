"""What lies on the disk already, and what a run will write there."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from flowtuner.engine.estimate import BITS, Estimate, count_checkpoint, read_header
from flowtuner.engine.formats import find_text_precision, is_quantised
from flowtuner.engine.processes import count_processes
from flowtuner.options import TrainingConfig
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


def list_tries(config: TrainingConfig) -> Iterator[dict[str, object]]:
    """Changes of options that save memory, the least intrusive first."""
    small: dict[str, object] = {"optimizer": "adamw_bf16"}
    lora: dict[str, object] = {"model_type": "lora", "lora_type": "standard"}
    if not config.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if config.train_batch_size > 1:
        yield {"train_batch_size": 1, "gradient_checkpointing": True}
    if config.model_type == "full" and not config.controlnet:
        plain: dict[str, object] = {"use_ema": False} if config.use_ema else {}
        if plain:
            yield plain
        yield small
        yield plain | {"train_batch_size": 1} | small
        if count_processes(config) > 1:
            yield {"fsdp_enable": True, "optimizer": "torch-adamw"}
        yield lora
        yield {**lora, "base_model_precision": "int8-quanto", "train_batch_size": 1}
    elif not is_quantised(config):
        if config.model_type == "lora" and config.lora_type == "standard" and not config.enable_group_offload:
            yield {"enable_group_offload": True, "gradient_checkpointing": True}
        yield {"base_model_precision": "int8-quanto"}
        yield {"base_model_precision": "int8-quanto", "train_batch_size": 1, "gradient_checkpointing": True}
    elif config.base_model_precision != "int4-quanto":
        yield {"base_model_precision": "int4-quanto", "train_batch_size": 1, "gradient_checkpointing": True}
