"""ComfyUI's names for the tensors of a LoRA file: one prefix for every model, and an alpha beside each pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

PREFIX = "diffusion_model."
ALPHA = ".alpha"
DOWN = ".lora_A.weight"
MAGNITUDE, DORA_SCALE = ".lora_magnitude_vector", ".dora_scale"

Tensors = dict[str, torch.Tensor]


def is_named_so(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Says whether a file is ComfyUI's."""
    return any(name.startswith(PREFIX) for name in tensors)


def rename(tensors: Mapping[str, torch.Tensor], component: str, alpha: float) -> Tensors:
    """Diffusers' tensors under ComfyUI's names."""
    renamed = {}
    for name, tensor in tensors.items():
        own = PREFIX + name.removeprefix(f"{component}.")
        if own.endswith(MAGNITUDE):
            # There it is a column that multiplies the weight's rows.
            renamed[own.removesuffix(MAGNITUDE) + DORA_SCALE] = tensor.reshape(-1, 1)
            continue
        renamed[own] = tensor
        if own.endswith(DOWN):
            renamed[own.removesuffix(DOWN) + ALPHA] = torch.tensor(float(alpha))
    return renamed


def rename_back(tensors: Mapping[str, torch.Tensor], component: str) -> Tensors:
    """ComfyUI's tensors under diffusers' names; the alphas are left to `infer_settings`."""
    renamed = {}
    for name, tensor in tensors.items():
        own = f"{component}." + name.removeprefix(PREFIX)
        if own.endswith(DORA_SCALE):
            renamed[own.removesuffix(DORA_SCALE) + MAGNITUDE] = tensor.reshape(-1)
        elif not own.endswith(ALPHA):
            renamed[own] = tensor
    return renamed


def infer_settings(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Rank, alpha and targets of a file without metadata: as its tensors have them."""
    layers = [name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    rank = tensors[layers[0] + DOWN].shape[0]
    alpha = tensors.get(layers[0] + ALPHA)
    return {
        "r": rank,
        "lora_alpha": float(rank if alpha is None else alpha),
        "target_modules": [layer.removeprefix(PREFIX) for layer in layers],
        "use_dora": any(name.endswith(DORA_SCALE) for name in tensors),
    }
