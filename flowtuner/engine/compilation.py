"""torch.compile for the step: compiled once while training, left alone while pictures are drawn."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig


def compile_model(model: torch.nn.Module, config: TrainingConfig) -> None:
    """Has a model's calls compiled where the options ask for it; its weights and their names stay as they are."""
    if config.dynamo_backend == "no":
        return
    is_regional = config.dynamo_use_regional_compilation
    if is_regional is None:
        # Compiled alone for a CPU, a block of PixArt under bfloat16 gave gradients that are no numbers (torch 2.13).
        is_regional = next(model.parameters()).is_cuda
    for region in (repeated_blocks(model) or [model]) if is_regional else [model]:
        region.compile(backend=config.dynamo_backend, mode=_mode(config))


def uncompiled(config: TrainingConfig) -> contextlib.AbstractContextManager[object]:
    """While this lasts nothing is compiled: pictures come in sizes that training never sees."""
    if config.dynamo_backend == "no" or config.validation_torch_compile:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def repeated_blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks that make up most of a model: those of one class differ in their weights alone."""
    names = getattr(model, "_repeated_blocks", None)  # diffusers says which, for most of its models
    if names:
        return [module for module in model.modules() if type(module).__name__ in names]
    rows = (module for module in model.children() if isinstance(module, torch.nn.ModuleList) and len(module) > 1)
    return [block for row in rows if len({type(block) for block in row}) == 1 for block in row]


def _mode(config: TrainingConfig) -> str | None:
    # Only inductor knows modes; the others refuse the argument.
    return config.dynamo_mode if config.dynamo_backend == "inductor" else None
