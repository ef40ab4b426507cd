"""Full fine-tuning: every weight of the model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flowtuner.durable import atomic_folder
from flowtuner.engine.adapters.part import TrainedPart
from flowtuner.engine.families.parts.weights import MODEL_WEIGHTS, copy_into, read_weights, save_model
from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.engine.family import Family

RELEASE = "pipeline"
NOTHING_TO_SWITCH_OFF = "a full fine-tune has no adapter that could be switched off for is_regularisation_data"


def attach(model: torch.nn.Module, family: Family) -> TrainedPart:
    """Makes all weights trainable."""
    model.requires_grad_(True)
    return FullModel(model, family)


class FullModel(TrainedPart):
    """All weights, saved as a diffusers model folder."""

    def __init__(self, model: torch.nn.Module, family: Family) -> None:
        super().__init__(dict(model.named_parameters()))
        self._model = model
        self._family = family

    def switched_off(self) -> AbstractContextManager[None]:
        """Refuses: the weights of before are not kept."""
        raise ConfigError([Fault("model_type", "full", "", NOTHING_TO_SWITCH_OFF, "lora")])

    def save(self, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes `transformer/` as `save_pretrained` does."""
        save_model(self._model, folder / self._family.component, state)

    def save_ema(self, folder: Path) -> None:
        """Writes `transformer_ema/`."""
        save_model(self._model, folder / f"{self._family.component}_ema")

    def save_release(self, output_dir: Path) -> None:
        """Writes `pipeline/`, a complete folder for DiffusionPipeline.from_pretrained."""
        with atomic_folder(output_dir / RELEASE) as part:
            self._family.save_pipeline(self._model, part)

    def load(self, folder: Path) -> None:
        """Reads `transformer/` back."""
        path = folder / self._family.component / MODEL_WEIGHTS
        copy_into(self._model.state_dict(), read_weights(path), path)
