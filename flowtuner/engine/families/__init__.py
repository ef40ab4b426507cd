"""Model families: one file each, found by its name, which is the value of `model_family`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.engine.family import Family
    from flowtuner.options import TrainingConfig


def supported() -> tuple[str, ...]:
    """The families the engine can train: the names of the files here, none of them imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg))


def open_family(name: str) -> type[Family]:
    """The class of a family; its file is imported now, torch only when it loads something."""
    if name not in supported():
        fault = Fault("model_family", name, "", "the engine does not support it yet", ", ".join(supported()))
        raise ConfigError([fault])
    module = importlib.import_module(f"{__name__}.{name}")
    family: type[Family] = module.FAMILY
    return family


def choose_source(config: TrainingConfig) -> str:
    """Where the model comes from: the given folder or Hub id, or what the flavour stands for."""
    if config.pretrained_model_name_or_path:
        return config.pretrained_model_name_or_path
    family = open_family(config.model_family)
    flavour = config.model_flavour or family.default_flavour
    if flavour not in family.flavours:
        fault = Fault("model_flavour", flavour, "", "is not a flavour of this family", ", ".join(family.flavours))
        raise ConfigError([fault])
    return family.flavours[flavour]
