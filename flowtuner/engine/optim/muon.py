"""Muon for matrices, AdamW for everything else: biases, norms and convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """Torch's Muon moves matrices, AdamW the rest; Muon's steps are scaled so that one learning rate suits both."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        fused: bool = False,
    ) -> None:
        parameters = list(params)
        super().__init__(parameters, {"lr": lr})
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        rest = [parameter for parameter in parameters if parameter.ndim != 2]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            turn = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
            muon = torch.optim.Muon(matrices, lr, weight_decay, adjust_lr_fn="match_rms_adamw", **turn)  # type: ignore[arg-type]
            self._parts.append(muon)
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr, betas, eps, weight_decay, fused=fused))
        self._show_groups()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Makes one update of all parameters."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both, in a fixed order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes both states back."""
        for part, saved in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)
        self._show_groups()

    def _show_groups(self) -> None:
        # The very groups of the parts: a learning rate that is set here reaches them.
        self.param_groups = [group for part in self._parts for group in part.param_groups]
