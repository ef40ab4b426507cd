"""ControlNet: a copy of half the model is trained to see a picture, the model itself is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.durable import atomic_folder
from flowtuner.engine.adapters.part import TrainedPart
from flowtuner.engine.families.parts.weights import MODEL_WEIGHTS, copy_into, read_weights, save_model
from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.engine.family import Family

FOLDER = "controlnet"


def attach(model: torch.nn.Module, family: Family) -> TrainedPart:
    """Makes the ControlNet's weights trainable, and nothing else."""
    if not family.control_pipeline:
        raise ConfigError([Fault("controlnet", True, "", f"no ControlNet can be trained for {family.name}", "false")])
    model.requires_grad_(False)
    controlnet: Any = model.controlnet
    controlnet.requires_grad_(True)
    return ControlNet(controlnet)


class ControlNet(TrainedPart):
    """The ControlNet's weights, saved as diffusers' ControlNetModel loads them."""

    def __init__(self, controlnet: Any) -> None:
        super().__init__(dict(controlnet.named_parameters()))
        self._model = controlnet

    def switched_off(self) -> AbstractContextManager[None]:
        """Refuses: without the picture it sees there is nothing to compare."""
        problem = "a ControlNet has no untrained answer that is_regularisation_data could hold it to"
        raise ConfigError([Fault("controlnet", True, "", problem, "false")])

    def save(self, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes `controlnet/` as `save_pretrained` does."""
        save_model(self._model, folder / FOLDER, state)

    def save_ema(self, folder: Path) -> None:
        """Writes `controlnet_ema/`."""
        save_model(self._model, folder / f"{FOLDER}_ema")

    def save_release(self, output_dir: Path) -> None:
        """Writes `controlnet/` at the top of the output folder."""
        with atomic_folder(output_dir / FOLDER) as part:
            save_model(self._model, part)

    def load(self, folder: Path) -> None:
        """Reads `controlnet/` back."""
        path = folder / FOLDER / MODEL_WEIGHTS
        copy_into(self._model.state_dict(), read_weights(path), path)
