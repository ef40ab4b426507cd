"""What the engine cannot do (yet): found from the options alone, without torch, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flowtuner.engine.formats import find_precision_faults, is_quantised
from flowtuner.engine.packages import IsHere, Package, is_installed
from flowtuner.engine.processes import find_process_faults, wants_sharding
from flowtuner.engine.trackers import TENSORBOARD, wanted_trackers
from flowtuner.engine.validation.prompts import validation_prompts
from flowtuner.engine.validation.sizes import parse_resolutions
from flowtuner.errors import ConfigError, Fault
from flowtuner.options.lycoris import ADDING_ALGORITHMS, algorithms_of, settings_of
from flowtuner.options.sections.model import UNQUANTISED
from flowtuner.options.sections.optimizer import BUILT

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

OPTIMIZERS = BUILT
CHANGING_STARTS = ("olora", "pissa")
UNBUILT = {
    "sdnq-": "the package sdnq",
    "soap": "an implementation of SOAP",
    "muon": "an implementation of MuonClip; torch-muon is Muon without its clipping",
}


PACKAGES = {
    "optimi-": Package("optimi", "torch-optimi", "flowtuner[optimizers]"),
    "prodigy": Package("prodigyopt", "prodigyopt", "flowtuner[optimizers]"),
    "adamw_schedulefree": Package("schedulefree", "schedulefree", "flowtuner[optimizers]"),
    "ao-": Package("torchao", "torchao", "flowtuner[torchao]"),
    "bnb-": Package("bitsandbytes", "bitsandbytes", "bitsandbytes"),
}


LYCORIS = Package("lycoris", "lycoris-lora", "flowtuner[lycoris]")


def find_limits(config: TrainingConfig) -> list[Fault]:
    """Every option value that is valid but that the engine would refuse, with what it takes instead."""
    return [
        *find_optimizer_faults(config.optimizer),
        *find_precision_faults(config),
        *find_adapter_faults(config),
        *find_process_faults(config),
        *_find_offload_faults(config),
        *_find_tracker_faults(config),
        *_find_validation_faults(config),
    ]


def _find_offload_faults(config: TrainingConfig) -> Iterator[Fault]:
    if not config.enable_group_offload:
        return
    others = {
        "model_type": (config.model_type != "lora", "weights that are trained are needed where they are", "lora"),
        "lora_type": (config.lora_type != "standard", "LyCORIS rebuilds its layers' weights itself", "standard"),
        "base_model_precision": (is_quantised(config), "quantised weights are not lent", "no_change, bf16, fp16, fp32"),
        "dynamo_backend": (config.dynamo_backend != "no", "compiled blocks have their weights built in", "no"),
        "fsdp_enable": (wants_sharding(config), "FSDP cuts the weights up instead", "false"),
    }
    for option, (is_excluded, problem, allowed) in others.items():
        if is_excluded:
            why = f"enable_group_offload is on, and {problem}"
            yield Fault(option, getattr(config, option), "", why, allowed, "Or turn enable_group_offload off.")


def find_optimizer_faults(name: str, is_here: IsHere = is_installed) -> Iterator[Fault]:
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


def find_adapter_faults(config: TrainingConfig, is_here: IsHere = is_installed) -> Iterator[Fault]:
    """Says which kinds of adapter the engine does not train."""
    if config.model_type != "lora":
        return
    find = _find_lycoris_faults if config.lora_type == "lycoris" else _find_lora_faults
    yield from find(config, is_here)


def _find_lycoris_faults(config: TrainingConfig, is_here: IsHere) -> Iterator[Fault]:
    if not is_here(LYCORIS.module):
        problem = f"it needs the package {LYCORIS.name}, which is not installed"
        yield Fault("lora_type", config.lora_type, "", problem, "standard", f"pip install '{LYCORIS.install}'")
    if config.lora_format != "diffusers":
        problem = "LyCORIS files have names of their own, which ComfyUI reads as they are"
        yield Fault("lora_format", config.lora_format, "", problem, "diffusers")
    rebuilt = algorithms_of(settings_of(config.lycoris_config)) - set(ADDING_ALGORITHMS)
    if rebuilt and is_quantised(config):
        problem = f"{', '.join(sorted(rebuilt))} rebuilds weights, and quantised ones cannot be"
        allowed = f"algo {', '.join(ADDING_ALGORITHMS)}, or base_model_precision {', '.join(UNQUANTISED)}"
        yield Fault("base_model_precision", config.base_model_precision, "", problem, allowed)


def _find_lora_faults(config: TrainingConfig, is_here: IsHere) -> Iterator[Fault]:
    if config.lora_init_type == "loftq":
        problem = "it replaces the base weights by 4-bit ones, which the adapter file alone could not make up for"
        yield Fault("lora_init_type", config.lora_init_type, "", problem, "default, gaussian, olora, pissa")
    if config.lora_init_type not in CHANGING_STARTS:
        return
    for is_wrong, option, reason in (
        (
            is_quantised(config),
            "base_model_precision",
            "it takes a part out of the base weights, and these are quantised",
        ),
        (config.use_dora, "use_dora", "it takes a part out of the base weights, whose length DoRA measures"),
        (bool(config.init_lora), "init_lora", "the adapter starts from a file"),
    ):
        if is_wrong:
            value = f"{config.lora_init_type} with {option}={getattr(config, option)}"
            yield Fault("lora_init_type", value, "", reason, "default, gaussian", f"Or leave {option} out.")


def _find_tracker_faults(config: TrainingConfig) -> Iterator[Fault]:
    if TENSORBOARD in wanted_trackers(config) and not is_installed(TENSORBOARD):
        problem = "it needs the package tensorboard, which is not installed"
        yield Fault("report_to", config.report_to, "", problem, "none", "pip install 'flowtuner[trackers]'")


def _find_validation_faults(config: TrainingConfig) -> Iterator[Fault]:
    try:
        if validation_prompts(config):
            parse_resolutions(config.validation_resolution, config.aspect_bucket_alignment)
    except ConfigError as error:
        yield from error.faults
