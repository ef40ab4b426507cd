"""Tensors of which every process holds a share only: how they are told apart, made whole and cut up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map


def is_sharded(tensor: object) -> bool:
    """Whether this process holds a share of the tensor only; told without the import, which takes most of a second."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with everybody's shares; all processes have to ask."""
    full: torch.Tensor = getattr(tensor, "full_tensor")() if is_sharded(tensor) else tensor  # noqa: B009
    return full


def own_shares(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What this process holds of each, not copied: for what is computed element by element."""
    return [getattr(tensor, "to_local")() if is_sharded(tensor) else tensor for tensor in tensors]  # noqa: B009


def gather(values: Any) -> Any:
    """Nested values with whole tensors in main memory in the place of shares; all processes have to ask."""
    return tree_map(lambda value: whole(value).cpu() if is_sharded(value) else value, values)


def share_like(tensor: torch.Tensor, target: Any) -> torch.Tensor:
    """A whole tensor cut up as `target` is, if it is."""
    if not is_sharded(target):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # Everybody has read the same file: nothing has to be sent.
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def share_states(state: Mapping[str, Any], parameters: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The state of an optimizer, in which every tensor shaped as its parameter is cut up as that is."""
    return {
        **state,
        "state": {
            number: {name: _share_state(value, parameters[number]) for name, value in entries.items()}
            for number, entries in state["state"].items()
        },
    }


def _share_state(value: Any, parameter: torch.Tensor) -> Any:
    is_alike = isinstance(value, torch.Tensor) and value.shape == parameter.shape
    return share_like(value, parameter) if is_alike else value
