"""What a folder holds that another program has made: an adapter, a whole model or a pipeline, by its files."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowtuner import durable
from flowtuner.publishing.selection import is_publishable, walk

Shape = Literal["adapter", "model", "pipeline"]

ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors")
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "diffusion_pytorch_model*.safetensors")
PIPELINE = "model_index.json"
# What loading or understanding a model needs; optimizer states, arguments and logs of the training are not among it.
MODEL_FILES = (
    *ADAPTERS,
    *WEIGHTS,
    "*.safetensors.index.json",
    "*.bin.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    PIPELINE,
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "*processor_config.json",
    "README.md",
    "LICENSE*",
)
# TRL's arguments are a pickle that keeps the token it was given.
WITH_CREDENTIALS = frozenset({"training_args.bin"})
STATES = ("trainer_state.json", "training_state.json")


@dataclass(frozen=True)
class Recognised:
    """What a folder was found to be, and the files that make it up."""

    shape: Shape
    files: tuple[str, ...]


def recognise(folder: Path) -> Recognised | None:
    """Says what model a folder holds; None if it holds none."""
    names = [path.name for path in folder.iterdir() if is_publishable(path, folder)]
    shape = _shape_of(names)
    if shape is None:
        return None
    files = {name for name in names if _is_any_of(name, MODEL_FILES)}
    if shape == "pipeline":
        files |= {path for part in _parts_of(folder) for path in walk(folder / part, folder)}
    return Recognised(shape, tuple(sorted(files - WITH_CREDENTIALS)))


def read_step(folder: Path) -> int:
    """The step that a folder says it was saved at, 0 if it does not."""
    for name in STATES:
        if (folder / name).is_file():
            state = durable.read_json(folder / name)
            return int(state.get("global_step", 0)) if isinstance(state, dict) else 0
    return 0


def _shape_of(names: Sequence[str]) -> Shape | None:
    if PIPELINE in names:
        return "pipeline"
    if any(name in ADAPTERS for name in names):
        return "adapter"
    return "model" if any(_is_any_of(name, WEIGHTS) for name in names) else None


def _parts_of(folder: Path) -> Iterator[str]:
    index = durable.read_json(folder / PIPELINE)
    for name, kind in index.items() if isinstance(index, dict) else ():
        if isinstance(kind, list) and not name.startswith("_") and (folder / name).is_dir():
            yield name


def _is_any_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
