"""Number formats in which weights can stand and products be computed: what each takes, known without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from flowtuner.engine.packages import IsHere, Package, is_installed
from flowtuner.errors import Fault
from flowtuner.options.sections.model import UNQUANTISED

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

BF16_OPTIMIZER = "adamw_bf16"
KAHAN_OPTIMIZERS = "optimi-"
FP32, BF16, FP16 = "float32", "bfloat16", "float16"
PLAIN = MappingProxyType({"fp32": FP32, "bf16": BF16, "fp16": FP16})
QUANTO = Package("optimum.quanto", "optimum-quanto", "flowtuner[quant]")
TORCHAO = Package("torchao", "torchao", "flowtuner[torchao]")
TEXT_ENCODERS = tuple(f"text_encoder_{number}_precision" for number in range(1, 5))
NO_GRADIENT = "it rounds the activations too, and no gradient flows through such products"
UNBUILT = MappingProxyType(
    {
        "int8dq-torchao": NO_GRADIENT,
        "int8dq-int4-torchao": NO_GRADIENT,
        "fp8-int4-torchao": NO_GRADIENT,
        "fp8-native": "the engine does not drive it",
        "fp8-transformerengine": "it needs the package transformer-engine, which the engine does not drive",
        "nf4-bnb": "it needs the package bitsandbytes, which the engine does not drive for weights",
    }
)


@dataclass(frozen=True)
class Format:
    """What a quantised format takes."""

    package: Package
    needs_cuda: bool = False
    instead: str = ""
    """What comes nearest to it where it cannot be had."""


FORMATS = MappingProxyType(
    {
        "int8-quanto": Format(QUANTO),
        "int4-quanto": Format(QUANTO),
        "int2-quanto": Format(QUANTO),
        "fp8-quanto": Format(QUANTO),
        "fp8uz-quanto": Format(QUANTO),
        "int8-torchao": Format(TORCHAO),
        "fp8wo-torchao": Format(TORCHAO),
        "int4-torchao": Format(Package("mslk", "mslk", "mslk"), needs_cuda=True, instead="int4-quanto"),
        "fp8-torchao": Format(TORCHAO, needs_cuda=True, instead="fp8wo-torchao"),
    }
)


def is_quantised(config: TrainingConfig) -> bool:
    """Says whether the base model's weights stand in fewer bits than any dtype that is trained in."""
    return config.base_model_precision not in UNQUANTISED


@dataclass(frozen=True)
class Formats:
    """In which numbers the parts of a run stand, by torch's names for them."""

    base: str
    """What the model is loaded in: for a full fine-tune these are the weights that are trained."""

    adapter: str
    """What adapter weights are kept in."""

    autocast: str | None
    """What matrix products are computed in, where it differs from the weights."""


def choose_formats(config: TrainingConfig, device: str) -> Formats:
    """Trained weights are float32 unless the optimizer loses nothing in fewer bits; LoRA may freeze a small base."""
    mixed = _choose_mixed(config, device)
    stored = PLAIN.get(config.base_model_precision)
    if config.optimizer == BF16_OPTIMIZER:
        base = BF16 if config.model_type == "full" or stored is None else stored
        return Formats(base, BF16, None if base == BF16 else mixed)
    if config.model_type == "full":
        if config.optimizer.startswith(KAHAN_OPTIMIZERS) and (stored or mixed) == BF16:
            return Formats(BF16, BF16, None)
        # An ordinary optimizer loses small updates in 16-bit weights: these stay in float32, products may not.
        is_asked_for = config.mixed_precision is None and stored in (BF16, FP16)
        return Formats(FP32, FP32, BF16 if is_asked_for else mixed)
    if is_quantised(config):
        return _over_quantised_base(config, mixed)
    base = stored or mixed or FP32
    # LyCORIS computes with weights as they stand; peft brings what it gets to its own dtype.
    needs_cast = config.lora_type == "lycoris" and base != FP32
    return Formats(base, FP32, mixed or (base if needs_cast else None))


def _over_quantised_base(config: TrainingConfig, mixed: str | None) -> Formats:
    is_exact_in_bf16 = config.optimizer.startswith(KAHAN_OPTIMIZERS) and mixed != FP16
    if config.base_model_default_dtype == "bf16" and is_exact_in_bf16:
        return Formats(BF16, BF16, None)
    return Formats(mixed or FP32, FP32, mixed)


def _choose_mixed(config: TrainingConfig, device: str) -> str | None:
    if config.mixed_precision is None:
        return None if device == "cpu" else BF16
    return {"bf16": BF16, "fp16": FP16}.get(config.mixed_precision)


def find_text_precision(config: TrainingConfig, part: str) -> str:
    """In which format a text encoder is to stand: `text_encoder` is the first one, `text_encoder_2` the second."""
    number = int(part.removeprefix("text_encoder").removeprefix("_") or 1)
    return str(getattr(config, TEXT_ENCODERS[number - 1]))


def has_cuda() -> bool:
    """Says whether a run would find an NVIDIA device, without torch."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(Path("/dev").glob("nvidia[0-9]*"))


def find_precision_faults(
    config: TrainingConfig, is_here: IsHere = is_installed, has_device: Callable[[], bool] = has_cuda
) -> Iterator[Fault]:
    """Says which number formats the engine does not compute or store in, on this machine or on any."""
    yield from _find_mixed_faults(config)
    for option in ("base_model_precision", *TEXT_ENCODERS):
        yield from _find_format_faults(option, getattr(config, option), is_here, has_device)
    if not is_quantised(config):
        return
    if config.model_type == "full":
        problem = "quantised weights cannot be trained, and model_type=full trains them"
        allowed = f"{', '.join(UNQUANTISED)}; or model_type lora"
        yield Fault("base_model_precision", config.base_model_precision, "", problem, allowed)
    if config.base_model_default_dtype == "fp32" and config.optimizer == BF16_OPTIMIZER:
        problem = f"{BF16_OPTIMIZER} trains bfloat16 weights"
        yield Fault("base_model_default_dtype", "fp32", "", problem, "bf16", "Or choose torch-adamw.")


def _find_mixed_faults(config: TrainingConfig) -> Iterator[Fault]:
    if config.mixed_precision == "fp8":
        problem = "the engine does not compute in it: gradients in 8 bits need scales of their own"
        advice = "bf16 computes; base_model_precision=fp8-quanto stores the frozen weights in 8 bits"
        yield Fault("mixed_precision", "fp8", "", problem, "no, bf16, fp16", advice)
    if config.mixed_precision == "fp16" and config.optimizer == BF16_OPTIMIZER:
        problem = f"{BF16_OPTIMIZER} trains bfloat16 weights, whose products are bfloat16 too"
        yield Fault("mixed_precision", "fp16", "", problem, "bf16", "Or choose torch-adamw.")


def _find_format_faults(option: str, value: str, is_here: IsHere, has_device: Callable[[], bool]) -> Iterator[Fault]:
    if value in UNQUANTISED:
        return
    usable = [
        name for name, one in FORMATS.items() if is_here(one.package.module) and (not one.needs_cuda or has_device())
    ]
    allowed = ", ".join((*UNQUANTISED, *usable))
    known = FORMATS.get(value)
    if known is None:
        reason = UNBUILT.get(value, "it needs the package sdnq, which the engine does not drive")
        yield Fault(option, value, "", f"the engine cannot train on it: {reason}", allowed)
    elif known.needs_cuda and not has_device():
        problem = "its products exist on CUDA devices only, and none is here"
        yield Fault(option, value, "", problem, allowed, f"{known.instead} comes nearest.")
    elif not is_here(known.package.module):
        problem = f"it needs the package {known.package.name}, which is not installed"
        yield Fault(option, value, "", problem, allowed, f"pip install '{known.package.install}'")
