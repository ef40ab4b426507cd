"""LoRA through peft, for every family alike: some diffusers models have no adapter methods of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.durable import atomic_file
from flowtuner.engine.adapters import comfyui
from flowtuner.engine.adapters.files import EMA_FOLDER, WEIGHTS, find_weights
from flowtuner.engine.adapters.metadata import describe_adapter
from flowtuner.engine.adapters.part import TrainedPart, holding
from flowtuner.engine.families.parts.weights import copy_into, read_metadata, read_weights, write_weights
from flowtuner.engine.limits import CHANGING_STARTS
from flowtuner.errors import CheckpointError, ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.engine.family import Family
    from flowtuner.engine.precision import Precision
    from flowtuner.options import TrainingConfig

SETTINGS = "lora_adapter_metadata"  # the key and the form that diffusers reads
ADAPTER = "default"
RAW = "lora_parameters.safetensors"
"""The trained matrices themselves, where the file for inference holds something computed from them."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
STARTS: Mapping[str, Any] = {"gaussian": "gaussian", "olora": "olora", "pissa": "pissa"}

Tensors = dict[str, torch.Tensor]


def attach(model: torch.nn.Module, config: TrainingConfig, family: Family, precision: Precision) -> TrainedPart:
    """Freezes the model and injects low-rank matrices into the family's target modules."""
    settings = _choose_settings(config, family)
    start = STARTS.get(config.lora_init_type, True)
    _inject(model, settings, lora_dropout=config.lora_dropout, init_lora_weights=start)
    model.requires_grad_(False)
    named = {}
    for name, parameter in model.named_parameters():
        if f".{ADAPTER}." in name:
            parameter.data = parameter.data.to(precision.adapter)
            parameter.requires_grad_(True)
            named[_file_name(name, family.component)] = parameter
    about = describe_adapter(config, family, "lora")
    part = Lora(
        named,
        family.component,
        settings,
        about,
        model,
        is_for_comfyui=config.lora_format == "comfyui",
        is_beside_base=config.lora_init_type in CHANGING_STARTS,
    )
    if config.init_lora:
        part.read(find_weights(Path(config.init_lora)))
    return part


def load_adapter(model: torch.nn.Module, path: Path, component: str = "transformer") -> torch.nn.Module:
    """Puts a saved LoRA onto a fresh diffusers model, rank, alpha and targets as the file says."""
    tensors, settings = _read_file(path, component)
    if settings is None:
        raise CheckpointError(f"{path} does not say how its LoRA was made ({SETTINGS} is missing in its metadata)")
    _inject(model, settings)
    named = {
        _file_name(name, component): parameter for name, parameter in model.named_parameters() if f".{ADAPTER}." in name
    }
    copy_into(named, tensors, path)
    return model.eval()


class Lora(TrainedPart):
    """The injected matrices, saved under the names of diffusers' `save_lora_weights`, or ComfyUI's."""

    def __init__(
        self,
        named: Mapping[str, torch.nn.Parameter],
        component: str,
        settings: Mapping[str, Any],
        about: Mapping[str, str],
        model: torch.nn.Module,
        *,
        is_for_comfyui: bool = False,
        is_beside_base: bool = False,
    ) -> None:
        super().__init__(named)
        self._model = model
        self._component = component
        self._settings = dict(settings)
        self._about = dict(about)
        self._is_for_comfyui = is_for_comfyui
        # Some starts take their first matrices out of the base weights: what was learned is the difference to them.
        self._start = {name: tensor.clone() for name, tensor in self.state().items()} if is_beside_base else None

    @contextlib.contextmanager
    def switched_off(self) -> Iterator[None]:
        """Leaves the injected matrices out of every layer, or puts those of the start in where the base lacks them."""
        if self._start:
            with holding(self._named, self._start):
                yield
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [layer for layer in self._model.modules() if isinstance(layer, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def save(self, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes `pytorch_lora_weights.safetensors`."""
        tensors = {**self.state(), **(state or {})}
        self._write(folder / WEIGHTS, tensors)
        if self._start or self._is_for_comfyui:
            write_weights(folder / RAW, tensors, {"format": "pt"})

    def save_ema(self, folder: Path) -> None:
        """Writes `ema/pytorch_lora_weights.safetensors`."""
        self._write(folder / EMA_FOLDER / WEIGHTS, self.state())

    def save_release(self, output_dir: Path) -> None:
        """Writes the weights at the top of the output folder."""
        with atomic_file(output_dir / WEIGHTS) as part:
            self._write(part, self.state())

    def load(self, folder: Path) -> None:
        """Reads the matrices back."""
        path = folder / RAW if (folder / RAW).is_file() else folder / WEIGHTS
        copy_into(self._named, read_weights(path), path)

    def read(self, path: Path) -> None:
        """Reads the matrices from a file of either format; one of another rank or other targets is refused."""
        tensors, settings = _read_file(path, self._component)
        # The same pictures as with the file alone, whatever alpha says here.
        factor = (settings["lora_alpha"] / settings["r"]) / self._scale if settings else 1.0
        if factor != 1.0:
            tensors = {name: tensor * factor if name.endswith(UP) else tensor for name, tensor in tensors.items()}
        copy_into(self._named, tensors, path)

    @property
    def _scale(self) -> float:
        return float(self._settings["lora_alpha"] / self._settings["r"])

    def _write(self, path: Path, tensors: Tensors) -> None:
        settings = self._settings
        if self._start:
            tensors = _subtract(tensors, self._start)
            settings = settings | {"r": 2 * settings["r"], "lora_alpha": 2 * settings["lora_alpha"]}
        noted = {f"{self._component}.{name}": value for name, value in settings.items()}
        if self._is_for_comfyui:
            tensors = comfyui.rename(tensors, self._component, settings["lora_alpha"])
        write_weights(path, tensors, self._about | {SETTINGS: json.dumps(noted, sort_keys=True)})


def _choose_settings(config: TrainingConfig, family: Family) -> dict[str, Any]:
    return {
        "r": config.lora_rank,
        "lora_alpha": config.lora_rank if config.lora_alpha is None else config.lora_alpha,
        "target_modules": list(config.lora_target_modules or family.lora_targets),
        "use_dora": config.use_dora,
    }


def _subtract(tensors: Tensors, start: Tensors) -> Tensors:
    """The same change as matrices of twice the rank: what they make now without what they made at first."""
    return {
        name: torch.cat([tensor, start[name]], 0) if name.endswith(DOWN) else torch.cat([tensor, -start[name]], 1)
        for name, tensor in tensors.items()
    }


def _inject(model: torch.nn.Module, settings: Mapping[str, Any], **training: Any) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    try:
        inject_adapter_in_model(LoraConfig(**settings, **training), model, adapter_name=ADAPTER)
    except ValueError as error:
        targets = ", ".join(settings["target_modules"])
        problem = f"no layer of the model takes the adapter: {error}"
        raise ConfigError([Fault("lora_target_modules", targets, "", problem)]) from error


def _file_name(name: str, component: str) -> str:
    # peft drops the last word of DoRA's magnitudes too.
    plain = name.replace(f".{ADAPTER}.", ".").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
    return f"{component}.{plain}"


def _read_file(path: Path, component: str) -> tuple[Tensors, dict[str, Any] | None]:
    """The matrices under diffusers' names, and how they were made as far as the file tells."""
    tensors, text = read_weights(path), read_metadata(path).get(SETTINGS)
    settings = None if text is None else _plain_settings(json.loads(text), component)
    if not comfyui.is_named_so(tensors):
        return tensors, settings
    return comfyui.rename_back(tensors, component), settings or comfyui.infer_settings(tensors)


def _plain_settings(noted: Mapping[str, Any], component: str) -> dict[str, Any]:
    return {name.removeprefix(f"{component}."): value for name, value in noted.items()}
