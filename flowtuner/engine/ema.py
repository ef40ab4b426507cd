"""An exponential moving average of the trained weights, kept in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.engine.shares import own_shares, share_like
from flowtuner.errors import CheckpointError

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig


class Ema:
    """Follows the parameters at a distance; they can be swapped for the average and back."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], config: TrainingConfig) -> None:
        self._parameters: list[torch.Tensor] = list(parameters)
        self._decay = config.ema_decay
        self._interval = max(config.ema_update_interval or 1, 1)
        self._on_cpu = config.ema_cpu_only or config.ema_device == "cpu"
        self._is_tensorwise = config.ema_foreach_disable
        # In bfloat16 the average would stand still: one part in two hundred is below its resolution.
        self._average = [tensor.clone() for tensor in self._present()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the weights after optimizer step `step`; early steps count more."""
        if step % self._interval:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        if not self._is_tensorwise:
            torch._foreach_lerp_(own_shares(self._average), own_shares(self._present()), 1 - decay)
            return
        for average, present in zip(self._average, self._present(), strict=True):
            average.lerp_(present, 1 - decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the average into the model, and the trained weights back afterwards, bit by bit."""
        with torch.no_grad():
            trained = [parameter.detach().clone() for parameter in self._parameters]
            torch._foreach_copy_(own_shares(self._parameters), own_shares(self._average))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(own_shares(self._parameters), own_shares(trained))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the average back from a checkpoint."""
        saved = state["average"]
        if [tensor.shape for tensor in saved] != [tensor.shape for tensor in self._average]:
            raise CheckpointError("the EMA weights of the checkpoint belong to another model or other adapter options")
        shares = [share_like(*pair) for pair in zip(saved, self._average, strict=True)]
        torch._foreach_copy_(own_shares(self._average), own_shares(shares))

    def _present(self) -> list[torch.Tensor]:
        device = torch.device("cpu") if self._on_cpu else None
        return [parameter.detach().to(device, torch.float32) for parameter in self._parameters]
