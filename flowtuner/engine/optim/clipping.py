"""Gradient clipping, by norm or by value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from flowtuner.engine.shares import whole

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig


def clip_gradients(config: TrainingConfig, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Clips as the options say (`max_grad_norm` 0 or unset: not at all) and returns the norm before."""
    limit = config.max_grad_norm
    if limit and config.grad_clip_method == "norm":
        return whole(clip_norm(parameters, limit))
    norm = measure_norm(parameters)
    if limit:
        clip_value(parameters, limit)
    return whole(norm)


def clip_norm(parameters: Sequence[torch.nn.Parameter], limit: float) -> torch.Tensor:
    """Shrinks all gradients together so that their common norm is at most `limit`; returns the norm before."""
    norm = measure_norm(parameters)
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def clip_value(parameters: Sequence[torch.nn.Parameter], limit: float) -> None:
    """Cuts every single gradient to [-limit, limit]."""
    torch.nn.utils.clip_grad_value_(parameters, limit)


def measure_norm(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """The common 2-norm of all gradients."""
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
