"""What a run needs at the very least, before anything is loaded: read from the headers of the weights' files.

Weights, gradients, the optimizer's state and the average are counted exactly; what one step computes with comes on top
and is `sizing`'s to count, so that "will not fit" is certain here and "fits" is not said.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from flowtuner.engine import families
from flowtuner.engine.formats import KAHAN_OPTIMIZERS, choose_formats, has_cuda, is_quantised
from flowtuner.engine.hardware import list_gpus, read_memory_bytes
from flowtuner.engine.processes import count_processes, find_process_faults, wants_sharding
from flowtuner.engine.remedies import describe_change, list_changes
from flowtuner.errors import ConfigError

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

GIB = 1 << 30
ADAPTER_SHARE = 50
BYTES = MappingProxyType({"float32": 4, "bfloat16": 2, "float16": 2})
BITS = MappingProxyType({"int8": 8, "int4": 4, "int2": 2, "fp8": 8, "fp8uz": 8, "fp8wo": 8})
# How many numbers of the weights' own kind an optimizer keeps for each weight.
STATES: Mapping[str, float] = MappingProxyType(
    {
        "adamw_bf16": 2,
        "torch-adamw": 2,
        "torch-adam": 2,
        "torch-sgd": 0,
        "torch-adagrad": 1,
        "torch-adadelta": 2,
        "torch-adafactor": 0,
        "torch-adamax": 2,
        "torch-asgd": 1,
        "torch-nadam": 2,
        "torch-radam": 2,
        "torch-rprop": 2,
        "torch-rmsprop": 1,
        "torch-muon": 1,
        "adamw_schedulefree": 2,
        "adamw_schedulefree+aggressive": 2,
        "adamw_schedulefree+no_kahan": 2,
        "prodigy": 4,
        "optimi-stableadamw": 2,
        "optimi-adamw": 2,
        "optimi-lion": 1,
        "optimi-radam": 2,
        "optimi-ranger": 3,
        "optimi-adan": 4,
        "optimi-adam": 2,
        "optimi-sgd": 0,
    }
)
# The others keep so many bytes for each weight, whatever it stands in.
STATE_BYTES: Mapping[str, float] = MappingProxyType(
    {
        "ao-adamw8bit": 2,
        "ao-adamw4bit": 1,
        "ao-adamfp8": 2,
        "ao-adamwfp8": 2,
        "bnb-adagrad": 4,
        "bnb-adagrad8bit": 1,
        "bnb-adam": 8,
        "bnb-adam8bit": 2,
        "bnb-adamw": 8,
        "bnb-adamw8bit": 2,
        "bnb-lion": 4,
        "bnb-lion8bit": 1,
        "bnb-ademamix": 12,
        "bnb-ademamix8bit": 3,
    }
)
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for; all of them are there while a step is made."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    average: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.average

    def describe(self) -> str:
        """In words, without what there is none of."""
        parts = {
            "the weights": self.weights,
            "the adapter": self.adapter,
            "gradients": self.gradients,
            "the optimizer": self.optimizer,
            "the average": self.average,
        }
        return ", ".join(f"{size / GIB:.2f} GiB for {what}" for what, size in parts.items() if size)


def estimate_memory(config: TrainingConfig, device: str) -> Estimate | None:
    """The least that a run needs on `cpu` or `cuda`; None where the weights are not on this disk."""
    shapes = read_shapes(config)
    if not shapes:
        return None
    return count_memory(config, device, sum(map(prod, shapes.values())), _adapter_elements(config, shapes))


def count_memory(config: TrainingConfig, device: str, elements: int, added: int) -> Estimate:
    """What so many weights and so many numbers of an adapter or a ControlNet take."""
    formats = choose_formats(config, device)
    weights = int(elements * _weight_bytes(config, formats.base))
    if config.model_type == "full" and not config.controlnet:
        trained, width, adapter = elements, BYTES[formats.base], 0
    else:
        width = BYTES[formats.base if config.controlnet else formats.adapter]
        trained, adapter = added, added * width
    if config.enable_group_offload and device == "cuda":
        weights = 0  # they stay in main memory, but for a few at a time
    is_elsewhere = device != "cpu" and (config.ema_cpu_only or config.ema_device == "cpu")
    average = trained * 4 if config.use_ema and not is_elsewhere else 0
    found = Estimate(weights, adapter, trained * width, int(trained * _state_bytes(config, width)), average)
    if device == "cpu" or not wants_sharding(config):
        return found
    world = count_processes(config)  # each GPU has its share
    return Estimate(**{name: size // world for name, size in vars(found).items()})


def estimate_checkpoint(config: TrainingConfig) -> int:
    """About how many bytes one checkpoint takes; 0 where the weights are not on this disk."""
    found = estimate_memory(config, find_device()[0])
    return count_checkpoint(config, found) if found else 0


def count_checkpoint(config: TrainingConfig, found: Estimate) -> int:
    """What is written of all that: what is trained, the optimizer's state, and the average with weights made of it."""
    trained = found.weights if config.model_type == "full" and not config.controlnet else found.adapter
    if not trained:  # an adapter whose size depends on its own settings
        trained = max(found.weights // ADAPTER_SHARE, 1 << 20)
    return trained + found.optimizer + found.average + (trained if config.use_ema else 0)


def find_shortage(config: TrainingConfig) -> tuple[str, str] | None:
    """Why a run cannot fit on this machine's device, and with which options it might; None if it may."""
    if any(find_process_faults(config)):
        return None  # how many share it is not known, and that is said already
    device, room = find_device()
    found = estimate_memory(config, device)
    if found is None or not room or found.total <= room:
        return None
    problem = (
        f"will not fit: at least {found.total / GIB:.1f} GiB are needed ({found.describe()}), without what a step "
        f"computes with; this machine's {'GPU' if device == 'cuda' else 'memory'} has {room / GIB:.1f} GiB."
    )
    remedies = list(find_remedies(config, device, room))
    return problem, f"These make room: {'; '.join(remedies)}." if remedies else "Take a larger machine."


def find_device() -> tuple[str, int]:
    """Where a run would compute, and how many bytes there are."""
    gpus = list_gpus() if has_cuda() else []
    if gpus:
        return "cuda", int(gpus[0].memory_gb * GIB)
    return "cpu", read_memory_bytes()


def find_remedies(config: TrainingConfig, device: str, room: int) -> Iterator[str]:
    """Options with which the run might fit, the least intrusive first."""
    here = estimate_memory(config, device)
    for change in list_changes(config):
        found = estimate_memory(config.model_copy(update=change), device)
        if here and found and found.total < min(room, 0.98 * here.total):
            yield describe_change(change)


def read_shapes(config: TrainingConfig) -> Shapes:
    """The shapes of the weights that are trained or adapted, by name; none where they are not on this disk."""
    try:
        family = families.open_family(config.model_family)
        folder = Path(families.choose_source(config)).expanduser() / family.component
    except ConfigError:
        return {}
    shapes: dict[str, Sequence[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= read_header(file)
    return shapes


def read_header(file: Path) -> Shapes:
    """The shapes in a file of weights, by name; none if it is no such file."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, 100 << 20)))
    except (OSError, ValueError, struct.error):
        return {}  # loading it says what is wrong
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def _weight_bytes(config: TrainingConfig, base: str) -> float:
    if not is_quantised(config):
        return BYTES[base]
    return BITS.get(config.base_model_precision.partition("-")[0], 16) / 8


def _adapter_elements(config: TrainingConfig, shapes: Shapes) -> int:
    usual: Sequence[str] = getattr(families.open_family(config.model_family), "lora_targets", ())
    targets = config.lora_target_modules or usual
    if config.lora_type == "lycoris" or not targets:
        return 0  # how many it has depends on its own settings: a few per cent of the weights
    rank, count = config.lora_rank, 0
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if module != name and len(shape) > 1 and any(f".{module}".endswith(f".{target}") for target in targets):
            count += rank * (shape[0] + prod(shape[1:]))
    return count


def _state_bytes(config: TrainingConfig, width: int) -> float:
    if config.optimizer in STATE_BYTES:
        return STATE_BYTES[config.optimizer]
    kahan = 1 if config.optimizer.startswith(KAHAN_OPTIMIZERS) and width == 2 else 0
    return (STATES.get(config.optimizer, 0) + kahan) * width
