"""Optimizers by SimpleTuner's names."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.engine.limits import find_optimizer_faults
from flowtuner.engine.optim.adamw_bf16 import AdamWBf16
from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """How one optimizer is built."""

    make: type[torch.optim.Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)


BETAS = (0.9, 0.999)
RECIPES = {
    "adamw_bf16": Recipe(AdamWBf16, {"betas": BETAS, "weight_decay": 1e-2, "eps": 1e-6}),
    "torch-adamw": Recipe(torch.optim.AdamW, {"betas": BETAS, "weight_decay": 1e-2, "eps": 1e-8, "fused": True}),
    "torch-adam": Recipe(torch.optim.Adam, {"betas": BETAS, "weight_decay": 0.0, "eps": 1e-8, "fused": True}),
    "torch-sgd": Recipe(torch.optim.SGD, {"momentum": 0.0, "weight_decay": 0.0, "fused": True}),
    "torch-adagrad": Recipe(torch.optim.Adagrad, {"weight_decay": 0.0, "eps": 1e-10}),
    "torch-adadelta": Recipe(torch.optim.Adadelta, {"rho": 0.9, "weight_decay": 0.0, "eps": 1e-6}),
    "torch-adafactor": Recipe(torch.optim.Adafactor, {"weight_decay": 0.0}),
    "torch-adamax": Recipe(torch.optim.Adamax, {"betas": BETAS, "weight_decay": 0.0, "eps": 1e-8}),
    "torch-asgd": Recipe(torch.optim.ASGD, {"weight_decay": 0.0}),
    "torch-nadam": Recipe(torch.optim.NAdam, {"betas": BETAS, "weight_decay": 0.0, "eps": 1e-8}),
    "torch-radam": Recipe(torch.optim.RAdam, {"betas": BETAS, "weight_decay": 0.0, "eps": 1e-8}),
    "torch-rprop": Recipe(torch.optim.Rprop),
    "torch-rmsprop": Recipe(torch.optim.RMSprop, {"alpha": 0.99, "weight_decay": 0.0, "eps": 1e-8}),
}


def create_optimizer(
    config: TrainingConfig, parameters: Sequence[torch.nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """Builds the optimizer that the options name, with their settings over its defaults."""
    recipe = find_recipe(config.optimizer)
    settings = recipe.settings | _read_settings(config, recipe)
    if not config.fuse_optimizer or device.type not in ("cpu", "cuda"):
        settings.pop("fused", None)
    try:
        return recipe.make(list(parameters), lr=config.learning_rate, **settings)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        value = config.optimizer_config
        raise ConfigError([Fault("optimizer_config", value, "", f"{config.optimizer} refuses it: {error}")]) from error


def find_recipe(name: str) -> Recipe:
    """The recipe of a name (ConfigError if there is none, with the package it would take)."""
    if faults := list(find_optimizer_faults(name)):
        raise ConfigError(faults)
    return RECIPES[name]


def _read_settings(config: TrainingConfig, recipe: Recipe) -> dict[str, Any]:
    accepted = set(inspect.signature(recipe.make).parameters) - {"params", "lr"}
    settings: dict[str, Any] = {}
    if config.optimizer_beta1 is not None and config.optimizer_beta2 is not None and "betas" in accepted:
        settings["betas"] = (config.optimizer_beta1, config.optimizer_beta2)
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
