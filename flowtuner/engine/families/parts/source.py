"""A model folder in diffusers layout, looked at without torch: what is missing, cut short or of another kind."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
WEIGHTS = (".safetensors", ".bin")
HEADER_LIMIT = 100_000_000


def find_faults(
    folder: Path,
    pipelines: tuple[str, ...],
    parts: Mapping[str, tuple[str, ...]],
    optional: Collection[str] = (),
) -> list[str]:
    """Says what keeps a folder from loading as one of `pipelines`; `parts` maps its subfolders to their classes."""
    if not folder.is_dir():
        return [f"{folder} is not a folder"]
    index = folder / INDEX
    if not index.is_file():
        return [
            f"{index} is missing: give a folder in diffusers layout, as DiffusionPipeline.save_pretrained writes it"
        ]
    try:
        listed = read_object(index)
    except ValueError as error:
        return [str(error)]
    found = str(listed.get("_class_name"))
    if found not in pipelines:
        return [f"{index} names the pipeline {found}, this family loads {' or '.join(pipelines)}"]
    wanted = {part: classes for part, classes in parts.items() if part not in optional or is_listed(listed, part)}
    return [fault for part, classes in wanted.items() for fault in _find_part_faults(folder / part, classes)]


def is_listed(index: Mapping[str, Any], part: str) -> bool:
    """Whether a pipeline's index says that it has this part: parts left out stand there as two nulls."""
    entry = index.get(part)
    return isinstance(entry, list) and bool(entry) and entry[0] is not None


def read_class(path: Path) -> str:
    """The `_class_name` of a diffusers configuration file (ValueError if it is not one)."""
    return str(read_object(path).get("_class_name"))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file (ValueError with the place of the mistake if it is not one)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def find_vae_scale(folder: Path) -> int | None:
    """Pixels per latent of an autoencoder's folder, if it is there and says so."""
    settings = folder / "config.json"
    try:
        found = read_object(settings) if settings.is_file() else {}
    except ValueError:
        return None  # what is wrong with the file is `find_faults`' to say
    levels = found.get("block_out_channels") or found.get("encoder_block_out_channels")
    halvings = len(levels) - 1 if isinstance(levels, list) else None
    if isinstance(found.get("temperal_downsample"), list):
        halvings = len(found["temperal_downsample"])
    return None if halvings is None else 1 << halvings


def find_text_limit(tokenizer: Path, trained: int) -> int:
    """How many tokens a prompt may have: what the model was trained with, and no more than its tokenizer takes."""
    settings = tokenizer / "tokenizer_config.json"
    try:
        own = read_object(settings).get("model_max_length") if settings.is_file() else None
    except ValueError:
        return trained
    return min(trained, int(own)) if isinstance(own, int | float) else trained


def _find_part_faults(part: Path, classes: tuple[str, ...]) -> Iterator[str]:
    if not part.is_dir():
        yield f"{part}/ is missing"
    elif part.name.startswith("tokenizer"):
        if not any(part.glob("tokenizer*.json")) and not any(part.glob("*.model")):
            yield f"{part}/ holds no tokenizer (tokenizer.json or spiece.model)"
    elif part.name == "scheduler":
        yield from _find_config_faults(part / "scheduler_config.json", classes)
    else:
        yield from _find_config_faults(part / "config.json", classes)
        yield from _find_weight_faults(part)


def _find_config_faults(path: Path, classes: tuple[str, ...]) -> Iterator[str]:
    if not path.is_file():
        yield f"{path} is missing"
        return
    try:
        found = read_class(path)
    except ValueError as error:
        yield str(error)
        return
    if classes and found not in classes:
        yield f"{path} describes a {found}, this family loads {' or '.join(classes)}"


def _find_weight_faults(part: Path) -> Iterator[str]:
    indices = sorted(part.glob("*.safetensors.index.json")) + sorted(part.glob("*.bin.index.json"))
    if indices:
        yield from _find_shard_faults(part, indices[0])
        return
    weights = [path for path in sorted(part.iterdir()) if path.suffix in WEIGHTS]
    if not weights:
        yield f"{part}/ holds no weights (*.safetensors or *.bin)"
    for path in weights:
        yield from _find_file_faults(path)


def _find_shard_faults(part: Path, index: Path) -> Iterator[str]:
    try:
        shards = sorted(set(read_object(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        yield f"{index} cannot be read: {error}"
        return
    for name in shards:
        path = part / name
        if path.is_file():
            yield from _find_file_faults(path)
        else:
            yield f"{path} is missing, although {index.name} lists it"


def _find_file_faults(path: Path) -> Iterator[str]:
    """A file cut short by a broken download loads for minutes and then fails: its header tells at once."""
    if path.suffix != ".safetensors":
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            yield f"{path} is not a whole safetensors file ({size} bytes)"
            return
        try:
            header = json.loads(file.read(length))
        except ValueError:
            yield f"{path} is not a safetensors file: its header is not JSON"
            return
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        yield f"{path} has {size} bytes instead of {expected}: it was cut short, download it again"
