"""What the engine cannot do (yet): found from the options alone, without torch, before anything is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowtuner.engine.validation.prompts import validation_prompts
from flowtuner.engine.validation.sizes import parse_resolutions
from flowtuner.errors import ConfigError, Fault
from flowtuner.options.sections.optimizer import BUILT

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

OPTIMIZERS = BUILT
TENSORBOARD = "tensorboard"
UNBUILT = {
    "sdnq-": "the package sdnq",
    "soap": "an implementation of SOAP",
    "muon": "an implementation of MuonClip; torch-muon is Muon without its clipping",
}


@dataclass(frozen=True)
class Package:
    """A package that some optimizers live in: how Python and how pip call it."""

    module: str
    name: str
    install: str


PACKAGES = {
    "optimi-": Package("optimi", "torch-optimi", "flowtuner[optimizers]"),
    "prodigy": Package("prodigyopt", "prodigyopt", "flowtuner[optimizers]"),
    "adamw_schedulefree": Package("schedulefree", "schedulefree", "flowtuner[optimizers]"),
    "ao-": Package("torchao", "torchao", "flowtuner[quant]"),
    "bnb-": Package("bitsandbytes", "bitsandbytes", "bitsandbytes"),
}


def is_installed(module: str) -> bool:
    """Says whether a package is here, without importing it."""
    return importlib.util.find_spec(module) is not None


def find_limits(config: TrainingConfig) -> list[Fault]:
    """Every option value that is valid but that the engine would refuse, with what it takes instead."""
    return [
        *find_optimizer_faults(config.optimizer),
        *find_precision_faults(config),
        *find_adapter_faults(config),
        *_find_tracker_faults(config),
        *_find_validation_faults(config),
    ]


def find_optimizer_faults(name: str, is_here: Callable[[str], bool] = is_installed) -> Iterator[Fault]:
    """Says what an optimizer would need that is not here."""
    package = package_of(name)
    if name in OPTIMIZERS and (package is None or is_here(package.module)):
        return
    advice = "adamw_bf16 (little memory) or torch-adamw suit most runs"
    if name in OPTIMIZERS and package is not None:
        problem = f"it needs the package {package.name}, which is not installed"
        advice = f"pip install '{package.install}'; without it, {advice}"
    else:
        needed = next((need for prefix, need in UNBUILT.items() if name.startswith(prefix)), None)
        problem = f"the engine does not drive it yet; it needs {needed}" if needed else "no such optimizer"
    usable = [one for one in OPTIMIZERS if (other := package_of(one)) is None or is_here(other.module)]
    yield Fault("optimizer", name, "", problem, ", ".join(usable), advice)


def package_of(name: str) -> Package | None:
    """The package that an optimizer lives in, if it is not torch or Flowtuner itself."""
    return next((package for prefix, package in PACKAGES.items() if name.startswith(prefix)), None)


def wants_tensorboard(config: TrainingConfig) -> bool:
    """Says whether a run writes for TensorBoard; `all` means every tracker that is installed."""
    names = config.report_to.split(",")
    return TENSORBOARD in names or ("all" in names and is_installed(TENSORBOARD))


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


def _find_tracker_faults(config: TrainingConfig) -> Iterator[Fault]:
    if wants_tensorboard(config) and not is_installed(TENSORBOARD):
        problem = "it needs the package tensorboard, which is not installed"
        yield Fault("report_to", config.report_to, "", problem, "none", "pip install 'flowtuner[trackers]'")


def _find_validation_faults(config: TrainingConfig) -> Iterator[Fault]:
    try:
        if validation_prompts(config):
            parse_resolutions(config.validation_resolution, config.aspect_bucket_alignment)
    except ConfigError as error:
        yield from error.faults
