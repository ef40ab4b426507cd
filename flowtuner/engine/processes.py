"""How many processes train a run: from the options or accelerate's own settings file, found without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

KINDS = ("NO", "MULTI_GPU", "MULTI_CPU")


def count_processes(config: TrainingConfig) -> int:
    """`num_processes`, or what the file that `accelerate_config` names says where the option is left alone."""
    if config.num_processes > 1 or not config.accelerate_config:
        return config.num_processes
    return int(_read_settings(config.accelerate_config).get("num_processes", 1))


def find_process_faults(config: TrainingConfig) -> Iterator[Fault]:
    """Says what of the processes asked for cannot be done."""
    if config.num_machines > 1:
        yield Fault("num_machines", config.num_machines, "", "the engine trains on one machine", "1")
    try:
        settings = _read_settings(config.accelerate_config) if config.accelerate_config else {}
        count_processes(config)
    except ConfigError as error:
        yield from error.faults
        return
    kind = str(settings.get("distributed_type", "NO"))
    if kind not in KINDS:
        problem = f"its distributed_type {kind} is not one the engine trains with"
        yield Fault("accelerate_config", config.accelerate_config, "", problem, ", ".join(KINDS))
    if int(settings.get("num_machines", 1)) > 1:
        yield Fault("accelerate_config", config.accelerate_config, "", "the engine trains on one machine")


def _read_settings(path: str) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConfigError([Fault("accelerate_config", path, "", f"the file cannot be read: {reason}")]) from error
    if not isinstance(settings, dict):
        raise ConfigError([Fault("accelerate_config", path, "", "the file holds no settings (a YAML mapping)")])
    return settings
