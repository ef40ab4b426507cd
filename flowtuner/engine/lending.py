"""A frozen model whose weights stay in main memory: each layer is lent its own for as long as it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks import HookRegistry, ModelHook

from flowtuner.engine.quantize import linear_layers

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

HOOK = "lent_weights"


def wants_lending(config: TrainingConfig, device: torch.device) -> bool:
    """Whether weights are to stay away from the device; on a CPU they could not."""
    return config.enable_group_offload and device.type != "cpu"


def lend_weights(model: torch.nn.Module, device: torch.device) -> None:
    """Has the linear layers of the repeated blocks lent their frozen weights; all else moves to the device."""
    layers = [layer for _, _, layer in linear_layers(model) if not layer.weight.requires_grad]
    for layer in layers:
        weight = layer.weight.data
        LentWeights.on(layer, weight.pin_memory() if device.type == "cuda" else weight, device)
    model.to(device)
    for layer in layers:
        LentWeights.of(layer).take_back(layer)


class LentWeights(ModelHook):  # type: ignore[misc]  # diffusers carries no types
    """Puts a layer's weight on the device before it computes, and away afterwards.

    What the backward pass needs of it the graph holds by itself, until it is through. diffusers' own groups would move
    norms too, whose weights the backward pass reads from where they then are no more, and copy back what never changes.
    """

    _is_stateful = False

    def __init__(self, home: torch.Tensor, device: torch.device) -> None:
        super().__init__()
        self._home = home
        self._device = device

    @classmethod
    def on(cls, layer: torch.nn.Linear, home: torch.Tensor, device: torch.device) -> None:
        """Has a layer lent its weight from now on."""
        layer.weight.data = home.new_empty(0)  # what is moved with the rest of the model is nothing
        HookRegistry.check_if_exists_or_initialize(layer).register_hook(cls(home, device), HOOK)

    @classmethod
    def of(cls, layer: torch.nn.Linear) -> LentWeights:
        """A layer's own."""
        hook: LentWeights = HookRegistry.check_if_exists_or_initialize(layer).get_hook(HOOK)
        return hook

    def pre_forward(self, module: Any, *inputs: Any, **named: Any) -> tuple[Any, Any]:
        """Lends the weight."""
        module.weight.data = self._home.to(self._device, non_blocking=True)
        return inputs, named

    def post_forward(self, module: Any, output: Any) -> Any:
        """Takes it back."""
        self.take_back(module)
        return output

    def take_back(self, layer: torch.nn.Linear) -> None:
        """The weight as it is in main memory."""
        layer.weight.data = self._home
