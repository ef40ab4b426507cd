"""torch.compile for the step: compiled once while training, left alone while pictures are drawn."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig


def compile_model(model: torch.nn.Module, config: TrainingConfig) -> None:
    """Has a model's calls compiled where the options ask for it; its weights and their names stay as they are."""
    if config.dynamo_backend != "no":
        model.compile(backend=config.dynamo_backend, mode=_mode(config))


def uncompiled(config: TrainingConfig) -> contextlib.AbstractContextManager[object]:
    """While this lasts nothing is compiled: pictures come in sizes that training never sees."""
    if config.dynamo_backend == "no" or config.validation_torch_compile:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _mode(config: TrainingConfig) -> str | None:
    # Only inductor knows modes; the others refuse the argument.
    return config.dynamo_mode if config.dynamo_backend == "inductor" else None
