"""LoRA through peft, for every family alike: some diffusers models have no adapter methods of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.durable import atomic_file
from flowtuner.engine.adapters.part import TrainedPart
from flowtuner.engine.families.parts.weights import copy_into, read_metadata, read_weights, write_weights
from flowtuner.errors import CheckpointError, ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.engine.family import Family
    from flowtuner.engine.precision import Precision
    from flowtuner.options import TrainingConfig

WEIGHTS = "pytorch_lora_weights.safetensors"
EMA_FOLDER = "ema"
SETTINGS = "lora_adapter_metadata"  # the key and the form that diffusers reads
ADAPTER = "default"


def attach(model: torch.nn.Module, config: TrainingConfig, family: Family, precision: Precision) -> TrainedPart:
    """Freezes the model and injects low-rank matrices into the family's target modules."""
    settings = _choose_settings(config, family)
    start = "gaussian" if config.lora_init_type == "gaussian" else True
    _inject(model, settings, lora_dropout=config.lora_dropout, init_lora_weights=start)
    model.requires_grad_(False)
    named = {}
    for name, parameter in model.named_parameters():
        if f".{ADAPTER}." in name:
            parameter.data = parameter.data.to(precision.adapter)
            parameter.requires_grad_(True)
            named[_file_name(name, family.component)] = parameter
    part = Lora(named, family, settings, model)
    if config.init_lora:
        part.read(_find_weights(Path(config.init_lora)))
    return part


def load_adapter(model: torch.nn.Module, path: Path, component: str = "transformer") -> torch.nn.Module:
    """Puts a saved LoRA onto a fresh diffusers model, rank, alpha and targets as the file says."""
    settings = _read_settings(path, component)
    _inject(model, settings)
    named = {
        _file_name(name, component): parameter for name, parameter in model.named_parameters() if f".{ADAPTER}." in name
    }
    copy_into(named, read_weights(path), path)
    return model.eval()


class Lora(TrainedPart):
    """The injected matrices, saved under the names of diffusers' `save_lora_weights`."""

    def __init__(
        self,
        named: Mapping[str, torch.nn.Parameter],
        family: Family,
        settings: Mapping[str, Any],
        model: torch.nn.Module,
    ) -> None:
        super().__init__(named)
        self._model = model
        self._family = family
        self._settings = dict(settings)

    @contextlib.contextmanager
    def switched_off(self) -> Iterator[None]:
        """Leaves the injected matrices out of every layer."""
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
        write_weights(folder / WEIGHTS, {**self.state(), **(state or {})}, self._metadata())

    def save_ema(self, folder: Path) -> None:
        """Writes `ema/pytorch_lora_weights.safetensors`."""
        self.save(folder / EMA_FOLDER)

    def save_release(self, output_dir: Path) -> None:
        """Writes the weights at the top of the output folder."""
        with atomic_file(output_dir / WEIGHTS) as part:
            write_weights(part, self.state(), self._metadata())

    def load(self, folder: Path) -> None:
        """Reads the matrices back."""
        self.read(folder / WEIGHTS)

    def read(self, path: Path) -> None:
        """Reads the matrices from a file; one of another rank or other targets is refused."""
        copy_into(self._named, read_weights(path), path)

    def _metadata(self) -> dict[str, str]:
        component = self._family.component
        settings = {f"{component}.{name}": value for name, value in self._settings.items()}
        return {
            "format": "pt",
            SETTINGS: json.dumps(settings, sort_keys=True),
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{self._family.name}/lora",
            "modelspec.implementation": "https://github.com/huggingface/diffusers",
        }


def _choose_settings(config: TrainingConfig, family: Family) -> dict[str, Any]:
    return {
        "r": config.lora_rank,
        "lora_alpha": config.lora_rank if config.lora_alpha is None else config.lora_alpha,
        "target_modules": list(config.lora_target_modules or family.lora_targets),
        "use_dora": config.use_dora,
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


def _find_weights(path: Path) -> Path:
    path = path.expanduser()
    found = path / WEIGHTS if path.is_dir() else path
    if not found.is_file():
        raise CheckpointError(f"init_lora={path}: there is no {found}; give a LoRA file or a folder with {WEIGHTS}")
    return found


def _read_settings(path: Path, component: str) -> dict[str, Any]:
    text = read_metadata(path).get(SETTINGS)
    if text is None:
        raise CheckpointError(f"{path} does not say how its LoRA was made ({SETTINGS} is missing in its metadata)")
    prefix = f"{component}."
    return {name.removeprefix(prefix): value for name, value in json.loads(text).items()}
