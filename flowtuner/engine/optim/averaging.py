"""Optimizers that keep an average of the weights, which is what is shown and saved."""

from __future__ import annotations

import contextlib
from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class Averaging(Protocol):
    """An optimizer whose average can be put into the model for a while."""

    def swapped(self) -> contextlib.AbstractContextManager[None]:
        """Puts the average into the model, and the trained weights back afterwards, bit by bit."""


def averaged_weights(optimizer: torch.optim.Optimizer) -> contextlib.AbstractContextManager[None]:
    """Puts the optimizer's average into the model if it keeps one; else nothing changes."""
    return optimizer.swapped() if isinstance(optimizer, Averaging) else contextlib.nullcontext()
