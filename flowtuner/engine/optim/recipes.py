"""How each optimizer is made: where its class lives and with which settings it starts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Recipe:
    """How one optimizer is built; its package is imported by the run that asks for it, and by no other."""

    place: str
    settings: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[..., torch.optim.Optimizer]:
        """Imports the class."""
        module, _, name = self.place.partition(":")
        found: Callable[..., torch.optim.Optimizer] = getattr(importlib.import_module(module), name)
        return found


OURS = "flowtuner.engine.optim"
BETAS = {"betas": (0.9, 0.999)}
ADAM = BETAS | {"weight_decay": 0.0, "eps": 1e-8}
ADAMW = BETAS | {"weight_decay": 1e-2, "eps": 1e-8}
SMALL_ADAMW = BETAS | {"weight_decay": 1e-2, "eps": 1e-6}  # an epsilon that fewer bits can hold
LION = {"betas": (0.9, 0.99), "weight_decay": 0.0}
ADEMAMIX = {"betas": (0.9, 0.999, 0.9999), "alpha": 5.0, "weight_decay": 1e-2, "eps": 1e-8}
OPTIMI = {"betas": (0.9, 0.99), "weight_decay": 0.0, "eps": 1e-6}

RECIPES = {
    "adamw_bf16": Recipe(f"{OURS}.adamw_bf16:AdamWBf16", SMALL_ADAMW),
    "torch-adamw": Recipe("torch.optim:AdamW", ADAMW | {"fused": True}),
    "torch-adam": Recipe("torch.optim:Adam", ADAM | {"fused": True}),
    "torch-sgd": Recipe("torch.optim:SGD", {"momentum": 0.0, "weight_decay": 0.0, "fused": True}),
    "torch-adagrad": Recipe("torch.optim:Adagrad", {"weight_decay": 0.0, "eps": 1e-10}),
    "torch-adadelta": Recipe("torch.optim:Adadelta", {"rho": 0.9, "weight_decay": 0.0, "eps": 1e-6}),
    "torch-adafactor": Recipe("torch.optim:Adafactor", {"weight_decay": 0.0}),
    "torch-adamax": Recipe("torch.optim:Adamax", ADAM),
    "torch-asgd": Recipe("torch.optim:ASGD", {"weight_decay": 0.0}),
    "torch-nadam": Recipe("torch.optim:NAdam", ADAM),
    "torch-radam": Recipe("torch.optim:RAdam", ADAM),
    "torch-rprop": Recipe("torch.optim:Rprop"),
    "torch-rmsprop": Recipe("torch.optim:RMSprop", {"alpha": 0.99, "weight_decay": 0.0, "eps": 1e-8}),
    "torch-muon": Recipe(f"{OURS}.muon:MuonWithAdamW", ADAMW | {"momentum": 0.95, "fused": True}),
    "adamw_schedulefree": Recipe(f"{OURS}.schedule_free:ScheduleFree", ADAMW),
    "adamw_schedulefree+aggressive": Recipe(
        f"{OURS}.schedule_free:ScheduleFree", BETAS | {"weight_decay": 1e-3, "eps": 1e-6}
    ),
    # The weights are float32 here, where there is nothing for Kahan summation to catch: only the settings differ.
    "adamw_schedulefree+no_kahan": Recipe(
        f"{OURS}.schedule_free:ScheduleFree", BETAS | {"weight_decay": 1e-3, "eps": 1e-6}
    ),
    "prodigy": Recipe("prodigyopt:Prodigy", ADAM),
    "optimi-stableadamw": Recipe("optimi:StableAdamW", OPTIMI | {"weight_decay": 1e-2}),
    "optimi-adamw": Recipe("optimi:AdamW", OPTIMI),
    "optimi-lion": Recipe("optimi:Lion", LION),
    "optimi-radam": Recipe("optimi:RAdam", OPTIMI | {"decouple_wd": True}),
    "optimi-ranger": Recipe("optimi:Ranger", OPTIMI | {"decouple_wd": True}),
    "optimi-adan": Recipe("optimi:Adan", {"betas": (0.98, 0.92, 0.999), "weight_decay": 2e-2, "eps": 1e-6}),
    "optimi-adam": Recipe("optimi:Adam", OPTIMI),
    "optimi-sgd": Recipe("optimi:SGD", {"momentum": 0.0, "weight_decay": 0.0}),
    "ao-adamw8bit": Recipe("torchao.optim:AdamW8bit", SMALL_ADAMW),
    "ao-adamw4bit": Recipe("torchao.optim:AdamW4bit", SMALL_ADAMW),
    "ao-adamfp8": Recipe("torchao.optim:AdamFp8", SMALL_ADAMW),
    "ao-adamwfp8": Recipe("torchao.optim:AdamWFp8", SMALL_ADAMW),
    "bnb-adagrad": Recipe("bitsandbytes.optim:Adagrad", {"weight_decay": 0.0}),
    "bnb-adagrad8bit": Recipe("bitsandbytes.optim:Adagrad8bit", {"weight_decay": 0.0}),
    "bnb-adam": Recipe("bitsandbytes.optim:Adam", ADAM),
    "bnb-adam8bit": Recipe("bitsandbytes.optim:Adam8bit", ADAM),
    "bnb-adamw": Recipe("bitsandbytes.optim:AdamW", SMALL_ADAMW),
    "bnb-adamw8bit": Recipe("bitsandbytes.optim:AdamW8bit", SMALL_ADAMW),
    "bnb-adamw-paged": Recipe("bitsandbytes.optim:PagedAdamW", SMALL_ADAMW),
    "bnb-adamw8bit-paged": Recipe("bitsandbytes.optim:PagedAdamW8bit", SMALL_ADAMW),
    "bnb-lion": Recipe("bitsandbytes.optim:Lion", LION),
    "bnb-lion8bit": Recipe("bitsandbytes.optim:Lion8bit", LION),
    "bnb-lion-paged": Recipe("bitsandbytes.optim:PagedLion", LION),
    "bnb-lion8bit-paged": Recipe("bitsandbytes.optim:PagedLion8bit", LION),
    "bnb-ademamix": Recipe("bitsandbytes.optim:AdEMAMix", ADEMAMIX),
    "bnb-ademamix8bit": Recipe("bitsandbytes.optim:AdEMAMix8bit", ADEMAMIX),
    "bnb-ademamix-paged": Recipe("bitsandbytes.optim:PagedAdEMAMix", ADEMAMIX),
    "bnb-ademamix8bit-paged": Recipe("bitsandbytes.optim:PagedAdEMAMix8bit", ADEMAMIX),
}
