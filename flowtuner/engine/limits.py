"""What the engine cannot do (yet): found from the options alone, without torch, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flowtuner.engine.validation.prompts import validation_prompts
from flowtuner.engine.validation.sizes import parse_resolutions
from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

OPTIMIZERS = (
    *("adamw_bf16", "torch-adamw", "torch-adam", "torch-sgd", "torch-adagrad", "torch-adadelta", "torch-adafactor"),
    *("torch-adamax", "torch-asgd", "torch-nadam", "torch-radam", "torch-rmsprop", "torch-rprop"),
)
PACKAGES = {
    "optimi-": "the package torch-optimi",
    "bnb-": "the package bitsandbytes",
    "ao-": "the package torchao",
    "sdnq-": "the package sdnq",
    "prodigy": "the package prodigyopt",
    "adamw_schedulefree": "the package schedulefree",
    "soap": "an implementation of SOAP",
    "muon": "an implementation of MuonClip",
    "torch-muon": "a second optimizer beside it, since it moves matrices only",
}


def find_limits(config: TrainingConfig) -> list[Fault]:
    """Every option value that is valid but that the engine would refuse, with what it takes instead."""
    return [
        *find_optimizer_faults(config.optimizer),
        *find_precision_faults(config),
        *find_adapter_faults(config),
        *_find_validation_faults(config),
    ]


def find_optimizer_faults(name: str) -> Iterator[Fault]:
    """Says what an optimizer would need that is not here."""
    if name in OPTIMIZERS:
        return
    needed = next((need for prefix, need in PACKAGES.items() if name.startswith(prefix)), None)
    problem = f"the engine does not drive it yet; it needs {needed}" if needed else "no such optimizer"
    advice = "adamw_bf16 (little memory) or torch-adamw suit most runs"
    yield Fault("optimizer", name, "", problem, ", ".join(OPTIMIZERS), advice)


def find_precision_faults(config: TrainingConfig) -> Iterator[Fault]:
    """Says which number formats the engine does not compute or store in."""
    if config.mixed_precision not in (None, "no", "bf16"):
        problem = "the engine does not train in it: it needs loss scaling"
        advice = "bf16 is as fast and needs none"
        yield Fault("mixed_precision", config.mixed_precision, "", problem, "no, bf16", advice)
    if config.base_model_precision not in ("no_change", "bf16", "fp16", "fp32"):
        problem = "the engine cannot quantise the base model yet"
        allowed = "no_change, bf16, fp16, fp32"
        yield Fault("base_model_precision", config.base_model_precision, "", problem, allowed)


def find_adapter_faults(config: TrainingConfig) -> Iterator[Fault]:
    """Says which kinds of adapter the engine does not train."""
    if config.model_type != "lora":
        return
    if config.lora_type != "standard":
        yield Fault("lora_type", config.lora_type, "", "the engine does not train it yet", "standard")
    if config.lora_init_type not in ("default", "gaussian"):
        problem = "it changes the base weights, so the adapter file alone would not give the trained pictures"
        yield Fault("lora_init_type", config.lora_init_type, "", problem, "default, gaussian")


def _find_validation_faults(config: TrainingConfig) -> Iterator[Fault]:
    try:
        if validation_prompts(config):
            parse_resolutions(config.validation_resolution, config.aspect_bucket_alignment)
    except ConfigError as error:
        yield from error.faults
