"""LyCORIS through its own library: the network lives beside the model, whose layers call it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.durable import atomic_file, write_json
from flowtuner.engine.adapters.files import EMA_FOLDER, WEIGHTS, find_weights
from flowtuner.engine.adapters.metadata import describe_adapter
from flowtuner.engine.adapters.part import TrainedPart, holding
from flowtuner.engine.families.parts.weights import copy_into, read_metadata, read_weights, write_weights
from flowtuner.errors import CheckpointError, ConfigError, Fault
from flowtuner.options.lycoris import ADDING_ALGORITHMS, OPTION, PRESET, PRESET_MAPS, algorithms_of, settings_of

if TYPE_CHECKING:
    from flowtuner.engine.family import Family
    from flowtuner.engine.precision import Precision
    from flowtuner.options import TrainingConfig

SETTINGS = "lycoris_config"
SETTINGS_FILE = "lycoris_config.json"
EMA_WEIGHTS = "ema_model.safetensors"
RAW = "lycoris_parameters.safetensors"
"""The trained tensors themselves, where the file for inference holds something computed from them."""

ARGUMENTS = {
    "algo": "network_module",
    "linear_dim": "lora_dim",
    "linear_alpha": "alpha",
    "conv_dim": "conv_lora_dim",
    "dora_wd": "weight_decompose",
    "wd_on_output": "wd_on_out",
}
LAYER_ARGUMENTS = {
    "linear_dim": "dim",
    "linear_alpha": "alpha",
    "dora_wd": "weight_decompose",
    "wd_on_output": "wd_on_out",
}
CLASS_STATE = (
    "ENABLE_CONV", "TARGET_REPLACE_MODULE", "TARGET_REPLACE_NAME", "LORA_PREFIX", "MODULE_ALGO_MAP", "NAME_ALGO_MAP",
    "USE_FNMATCH", "TARGET_EXCLUDE_NAME",
)  # fmt: skip
DEFAULT_DIM = 4


def attach(model: torch.nn.Module, config: TrainingConfig, family: Family, precision: Precision) -> TrainedPart:
    """Freezes the model and puts the network that the settings describe beside it."""
    settings = settings_of(config.lycoris_config)
    model.requires_grad_(False)
    network = _create(model, settings)
    if config.init_lokr_norm:
        _start_perturbed(network, config.init_lokr_norm)
    network.apply_to()
    network.to(next(model.parameters()).device)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(precision.adapter)
        parameter.requires_grad_(True)
    part = Lycoris(network, settings, describe_adapter(config, family, "lycoris"))
    if config.init_lora:
        part.read(find_weights(Path(config.init_lora)))
    return part


def open_adapter(model: torch.nn.Module, path: Path, strength: float = 1.0) -> Any:
    """The network in a saved file, applied to a fresh model; its `restore()` takes it off."""
    wrapper = _library()
    settings = json.loads(read_metadata(path).get(SETTINGS, "{}"))
    with _class_state(wrapper.LycorisNetwork):
        wrapper.LycorisNetwork.LORA_PREFIX = (settings.get(PRESET) or {}).get("lora_prefix", "lycoris")
        network, _ = wrapper.create_lycoris_from_weights(strength, str(path), model, weights_sd=read_weights(path))
    if not network.loras:
        raise CheckpointError(f"{path} holds no LyCORIS network for a {type(model).__name__}")
    network.apply_to()
    return network


def merge_adapter(model: torch.nn.Module, path: Path, strength: float = 1.0) -> torch.nn.Module:
    """Adds the network in a saved file to a fresh model's own weights, which then need nothing beside them."""
    network = open_adapter(model, path)
    network.restore()
    for layer in network.loras:
        layer.merge_to(strength * _missing_factor(layer))
    return model


class Lycoris(TrainedPart):
    """The network's parameters, saved under the library's own names with the settings that they came from."""

    def __init__(self, network: Any, settings: Mapping[str, Any], about: Mapping[str, str]) -> None:
        super().__init__(dict(network.named_parameters()))
        self._network = network
        self._settings = dict(settings)
        self._about = dict(about)

    @contextlib.contextmanager
    def switched_off(self) -> Iterator[None]:
        """Lets every layer answer alone."""
        strength = self._network.multiplier
        for layer in self._network.loras:
            # Where the layer's own weight was taken over by the network, strength 0 gives it back.
            layer.multiplier = 0.0
            if not hasattr(layer, "_org_weight"):
                layer.org_module[0].forward = layer.org_forward
        try:
            yield
        finally:
            self._network.set_multiplier(strength)
            for layer in self._network.loras:
                layer.org_module[0].forward = layer.forward

    def save(self, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes `pytorch_lora_weights.safetensors` and `lycoris_config.json`."""
        with holding(self._named, state or {}):
            self._write(folder / WEIGHTS)
            if not self._is_told_by(self._network.state_dict()):
                write_weights(folder / RAW, self.state(), {"format": "pt"})
        write_json(folder / SETTINGS_FILE, self._settings)

    def save_ema(self, folder: Path) -> None:
        """Writes `ema/ema_model.safetensors`."""
        self._write(folder / EMA_FOLDER / EMA_WEIGHTS)

    def save_release(self, output_dir: Path) -> None:
        """Writes weights and settings at the top of the output folder."""
        with atomic_file(output_dir / WEIGHTS) as part:
            self._write(part)
        write_json(output_dir / SETTINGS_FILE, self._settings)

    def load(self, folder: Path) -> None:
        """Reads the parameters back, to the bit."""
        raw = folder / RAW
        if raw.is_file():
            copy_into(self._named, read_weights(raw), raw)
            return
        self.read(folder / WEIGHTS)

    def read(self, path: Path) -> None:
        """Reads a file that was written for inference; one of another network is refused."""
        tensors, wanted = read_weights(path), self._network.state_dict()
        if set(tensors) != set(wanted) or any(tensors[name].shape != wanted[name].shape for name in wanted):
            copy_into(wanted, tensors, path)  # says what does not fit
        self._network.load_state_dict(tensors, strict=False)

    def _write(self, path: Path) -> None:
        write_weights(
            path, self._network.state_dict(), self._about | {SETTINGS: json.dumps(self._settings, sort_keys=True)}
        )

    def _is_told_by(self, saved: Mapping[str, torch.Tensor]) -> bool:
        return all(name in saved and torch.equal(saved[name], tensor) for name, tensor in self.state().items())


def _create(model: torch.nn.Module, settings: Mapping[str, Any]) -> Any:
    wrapper = _library()
    network_class = wrapper.LycorisNetwork
    with _class_state(network_class):
        network_class.apply_preset(_fit_preset(model, settings.get(PRESET) or {}))
        try:
            network = network_class(model, **_arguments(model, settings))
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:
            problem = f"the library refuses it for a {type(model).__name__}: {error}"
            raise ConfigError([Fault(OPTION, dict(settings), "", problem)]) from error
    if not network.loras:
        present = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
        problem = f"no layer of {type(model).__name__} is named by {PRESET}"
        raise ConfigError([Fault(OPTION, settings.get(PRESET), "", problem, present)])
    return network


def _arguments(model: torch.nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The library's own names, with the defaults of its `create_lycoris`."""
    chosen = {name: value for name, value in settings.items() if name != PRESET and value is not None}
    chosen["algo"] = str(chosen["algo"]).lower()
    chosen.setdefault("linear_dim", DEFAULT_DIM)
    chosen.setdefault("conv_dim", chosen["linear_dim"])
    chosen.setdefault("conv_alpha", chosen["linear_alpha"])
    # A rebuilt weight is rounded to the base's dtype, where small updates vanish; in float32 it is exact, and faster.
    is_exact = all(type(one.data) is torch.Tensor and one.dtype == torch.float32 for one in model.parameters())
    is_free = "bypass_mode" not in chosen and not chosen.get("dora_wd")
    if is_free and not is_exact and algorithms_of(settings) <= set(ADDING_ALGORITHMS):
        chosen["bypass_mode"] = True
    return {ARGUMENTS.get(name, name): value for name, value in chosen.items()} | {"warn_on_unmatched": False}


def _fit_preset(model: torch.nn.Module, preset: Mapping[str, Any]) -> dict[str, Any]:
    """The preset for this model: `Attention` also stands for FluxAttention where no class is called just that."""
    classes = {type(module).__name__ for module in model.modules()}
    fitted = {name: value for name, value in preset.items() if value is not None}
    if "target_module" in fitted:
        fitted["target_module"] = [own for name in fitted["target_module"] for own in _meant(name, classes)]
    for name in PRESET_MAPS:
        layers = {key: _layer_arguments(own) for key, own in (fitted.get(name) or {}).items()}
        if name == "module_algo_map":
            layers = {own: value for key, value in layers.items() for own in _meant(key, classes)}
        fitted[name] = layers
    return fitted


def _meant(name: str, classes: set[str]) -> list[str]:
    if name in classes:
        return [name]
    return sorted(one for one in classes if one.endswith(name))


def _layer_arguments(own: Mapping[str, Any]) -> dict[str, Any]:
    return {LAYER_ARGUMENTS.get(name, name): value for name, value in settings_of(own).items()}


def _start_perturbed(network: Any, strength: float) -> None:
    """Starts LoKr beside zero: a first factor of ones, a second one that scatters as the layer's own weight does."""
    for layer in network.loras:
        if not hasattr(layer, "lokr_w1") or not hasattr(layer, "lokr_w2"):
            problem = "it starts LoKr layers with two whole factors; these settings make others"
            raise ConfigError([Fault("init_lokr_norm", strength, "", problem, "algo lokr with full_matrix true")])
        weight = layer.org_module[0].weight.detach()
        plain = (weight.dequantize() if hasattr(weight, "dequantize") else weight).float()
        with torch.no_grad():
            layer.lokr_w1.fill_(1.0)
            draw = torch.randn(layer.lokr_w2.shape)
            scattered = (draw - draw.mean()) / draw.std() * plain.std().cpu() + plain.mean().cpu()
            layer.lokr_w2.copy_(strength * scattered)


def _missing_factor(layer: Any) -> float:
    """What the library's merging gets wrong: for LoHa and LoKr it counts alpha over dimension twice."""
    if not hasattr(layer, "get_weight"):
        return 1.0
    with torch.no_grad():
        trained, merged = layer.get_weight(layer.shape) * layer.scalar, layer.get_diff_weight(1.0, layer.shape)[0]
        size = float(merged.norm())
        return float(trained.norm()) / size if size else 1.0


@contextlib.contextmanager
def _class_state(network_class: Any) -> Iterator[None]:
    """Keeps a preset to one network: the library notes it in its class, for all that are made later."""
    before = {name: getattr(network_class, name) for name in CLASS_STATE}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(network_class, name, value)


def _library() -> Any:
    from lycoris import wrapper

    logging.getLogger("LyCORIS").setLevel(logging.ERROR)  # it tells every layer's size on stdout
    return wrapper
