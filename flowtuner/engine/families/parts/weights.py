"""Weights files: safetensors whose bytes depend on their content alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from flowtuner.engine.shares import share_like
from flowtuner.errors import CheckpointError

MODEL_WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and metadata; the same ones give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, dict(metadata))
    _sort_metadata(path)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads tensors to the CPU (CheckpointError if the file is missing or damaged)."""
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a safetensors file (CheckpointError if it is missing or damaged)."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def save_model(model: Any, target: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Writes a diffusers model in `save_pretrained` layout, always as one file; `state` replaces some tensors."""
    target.mkdir(parents=True, exist_ok=True)
    model.save_config(target)
    write_weights(target / MODEL_WEIGHTS, {**_present_state(model), **(state or {})}, {"format": "pt"})


def _present_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    # What `state_dict` says, but without its hooks, which cut a model up again that was made whole to be saved.
    state: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in module.named_buffers(prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                state[name] = tensor
    return state


def copy_into(named: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], origin: Path) -> None:
    """Copies tensors into those of the same names, and refuses a set that does not fit exactly."""
    missing = sorted(set(named) - set(tensors))
    wrong = [name for name in named if name in tensors and named[name].shape != tensors[name].shape]
    surplus = sorted(set(tensors) - set(named))
    if missing or wrong or surplus:
        problems = [f"lacks {name}" for name in missing]
        problems += [f"has another shape for {name}" for name in wrong]
        problems += [f"also holds {name}" for name in surplus]
        raise CheckpointError(
            f"{origin} {problems[0]} ({len(missing)} missing, {len(wrong)} of another shape, {len(surplus)} too many): "
            "it was made with another model or other adapter options"
        )
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(share_like(tensors[name], tensor))


def _sort_metadata(path: Path) -> None:
    # The library writes metadata from a hash map in random order; a resumed run has to end with the same bytes.
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise CheckpointError(f"{path}: its header cannot be put in order ({len(text)} bytes instead of {length})")
        file.seek(8)
        file.write(text.ljust(length))
