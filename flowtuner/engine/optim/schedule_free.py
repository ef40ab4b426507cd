"""Schedule-free AdamW: gradients are taken at one point, and an average of all steps is the result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import schedulefree
import torch


class ScheduleFree(schedulefree.AdamWScheduleFree):  # type: ignore[misc]  # the package has no types
    """The package's optimizer, whose weights change places with their average without losing a bit."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, r=r, weight_lr_power=weight_lr_power)
        self.train()

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the average into the model, and the weights that are trained back afterwards."""
        # The package's own way back is arithmetic, which would make a run with validation another run.
        trained = [parameter.detach().clone() for parameter in self._all()]
        self.eval()
        try:
            yield
        finally:
            self._put_back(trained)

    def state_dict(self) -> dict[str, Any]:
        """The state, and the weights that are trained: a checkpoint's weights are the average."""
        state: dict[str, Any] = super().state_dict()
        return state | {"trained": [parameter.detach() for parameter in self._all()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes state and weights back; to be called after the weights were loaded."""
        super().load_state_dict(state_dict)
        self._put_back(state_dict["trained"])

    def _put_back(self, trained: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, tensor in zip(self._all(), trained, strict=True):
                parameter.copy_(tensor)
        for group in self.param_groups:
            group["train_mode"] = True

    def _all(self) -> Iterator[torch.nn.Parameter]:
        for group in self.param_groups:
            yield from group["params"]
