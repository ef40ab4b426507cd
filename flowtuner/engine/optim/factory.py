"""Optimizers by SimpleTuner's names."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.engine.limits import find_optimizer_faults
from flowtuner.engine.optim.recipes import RECIPES, Recipe
from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig


# Not for users: without Kahan summation bfloat16 weights stand still, and releasing gradients takes hooks in the loop.
RESERVED = {"params", "lr", "kahan_sum", "gradient_release"}


def create_optimizer(
    config: TrainingConfig, parameters: Sequence[torch.nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """Builds the optimizer that the options name, with their settings over its defaults."""
    recipe = find_recipe(config.optimizer)
    make = recipe.load()
    settings = recipe.settings | _read_settings(config, recipe, make)
    if not config.fuse_optimizer or device.type not in ("cpu", "cuda"):
        settings.pop("fused", None)
    if device.type == "cpu" and "triton" in inspect.signature(make).parameters:
        settings["triton"] = False  # optimi takes it wherever it is installed, and torch for CUDA brings it everywhere
    try:
        return make(list(parameters), lr=config.learning_rate, **settings)
    except (TypeError, ValueError) as error:
        value = config.optimizer_config
        raise ConfigError([Fault("optimizer_config", value, "", f"{config.optimizer} refuses it: {error}")]) from error


def find_recipe(name: str) -> Recipe:
    """The recipe of a name (ConfigError if there is none, with the package it would take)."""
    if faults := list(find_optimizer_faults(name)):
        raise ConfigError(faults)
    return RECIPES[name]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every parameter group the learning rate; one that is a tensor stays the same tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)  # compiled optimizers refuse another object
        else:
            group["lr"] = rate


def _read_settings(config: TrainingConfig, recipe: Recipe, make: Callable[..., Any]) -> dict[str, Any]:
    accepted = set(inspect.signature(make).parameters) - RESERVED
    settings: dict[str, Any] = {}
    if config.optimizer_beta1 is not None and config.optimizer_beta2 is not None and "betas" in accepted:
        # Some have a third one, which no option names.
        settings["betas"] = (config.optimizer_beta1, config.optimizer_beta2, *recipe.settings.get("betas", ())[2:])
    for name, text in _split(config.optimizer_config):
        if name not in accepted:
            allowed = ", ".join(sorted(accepted))
            raise ConfigError([Fault("optimizer_config", name, "", f"{config.optimizer} has no such setting", allowed)])
        settings[name] = _parse(text)
    return settings


def _split(value: Any) -> list[tuple[str, str]]:
    if not value:
        return []
    if isinstance(value, dict):
        return [(str(name), str(setting)) for name, setting in value.items()]
    pairs = [part.partition("=") for part in str(value).split(",")]
    broken = [name for name, sign, _ in pairs if not sign]
    if broken:
        raise ConfigError(
            [Fault("optimizer_config", value, "", f"{broken[0]!r} has no value", "name=value,name=value")]
        )
    return [(name.strip(), text.strip()) for name, _, text in pairs]


def _parse(text: str) -> Any:
    lowered = text.lower()
    if lowered in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[lowered]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
