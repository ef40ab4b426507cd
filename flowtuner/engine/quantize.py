"""Stores the frozen layers of a model in fewer bits; what is trained on top of them stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

PLAIN_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
QUANTO_TYPES = {
    "int8-quanto": "qint8",
    "int4-quanto": "qint4",
    "int2-quanto": "qint2",
    "fp8-quanto": "qfloat8",
    "fp8uz-quanto": "qfloat8_e4m3fnuz",
}
TORCHAO_CONFIGS = {
    "int8-torchao": "Int8WeightOnlyConfig",
    "fp8wo-torchao": "Float8WeightOnlyConfig",
    "int4-torchao": "Int4WeightOnlyConfig",
    "fp8-torchao": "Float8DynamicActivationFloat8WeightConfig",
}
PROBE_WIDTH = 128
"""A multiple of every format's group of values."""

Convert = Callable[[torch.nn.Linear], torch.nn.Module]


def quantise_base(
    load: Callable[[torch.dtype, torch.device], torch.nn.Module],
    dtype: torch.dtype,
    device: torch.device,
    config: TrainingConfig,
) -> torch.nn.Module:
    """Loads a model and quantises it where `quantize_via` says; the model stands on `device` afterwards."""
    name = config.base_model_precision
    if config.quantize_via == "accelerator":
        return quantise(load(dtype, device), name)
    model = load(dtype, torch.device("cpu"))
    # In turn, so that the device never holds the whole model in its first format.
    return quantise(model, name, device if config.quantize_via == "pipeline" else None).to(device)


def quantise(
    model: torch.nn.Module, name: str, device: torch.device | None = None, option: str = "base_model_precision"
) -> torch.nn.Module:
    """Replaces the weights of all linear layers in place, each moved to `device` before if one is given."""
    convert = _find_converter(name)
    _check_gradient(convert, name, option)
    for parent, key, layer in list(linear_layers(model)):
        if device is not None:
            layer.to(device)
        setattr(parent, key, convert(layer))
    model.requires_grad_(False)
    return model


def count_bytes(model: torch.nn.Module) -> int:
    """How much memory the parameters and buffers of a model take, quantised ones as they stand."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(_bytes_of(tensor) for tensor in tensors)


def _bytes_of(tensor: torch.Tensor) -> int:
    inner = tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor
    if not hasattr(inner, "__tensor_flatten__"):
        return inner.numel() * inner.element_size()
    names, _ = inner.__tensor_flatten__()
    return sum(_bytes_of(getattr(inner, name)) for name in names)


def linear_layers(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    """Those of the repeated blocks: what comes before and after them is small, and every error there is seen."""
    stacks: list[torch.nn.Module] = [one for one in model.modules() if isinstance(one, torch.nn.ModuleList)]
    for parent in dict.fromkeys(module for stack in stacks or [model] for module in stack.modules()):
        for key, layer in parent.named_children():
            if type(layer) is torch.nn.Linear:
                yield parent, key, layer


def _find_converter(name: str) -> Convert:
    if name in QUANTO_TYPES:
        return _quanto_converter(QUANTO_TYPES[name])
    return _torchao_converter(TORCHAO_CONFIGS[name])


def _quanto_converter(name: str) -> Convert:
    from optimum import quanto

    kind = getattr(quanto, name)

    def convert(layer: torch.nn.Linear) -> torch.nn.Module:
        made: Any = quanto.QLinear.from_module(layer, weights=kind)
        made.freeze()
        return made  # type: ignore[no-any-return]

    return convert


def _torchao_converter(name: str) -> Convert:
    import torchao.quantization as torchao

    settings = getattr(torchao, name)()

    def convert(layer: torch.nn.Linear) -> torch.nn.Module:
        torchao.quantize_(layer, settings)
        return layer

    return convert


def _check_gradient(convert: Convert, name: str, option: str) -> None:
    """Some formats compute on some devices without a way back: better said now than as a run that learns nothing."""
    with torch.random.fork_rng(devices=[]):
        layer = convert(torch.nn.Linear(PROBE_WIDTH, PROBE_WIDTH))
    layer.requires_grad_(False)
    inputs = torch.ones(1, PROBE_WIDTH, requires_grad=True)
    if not layer(inputs).requires_grad:
        problem = "no gradient flows through its products on this machine"
        raise ConfigError([Fault(option, name, "", problem, "int8-quanto, int8-torchao, fp8wo-torchao")])
