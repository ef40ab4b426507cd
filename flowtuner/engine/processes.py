"""How many processes train a run: from the options or accelerate's own settings file, found without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtuner.engine.formats import is_quantised
from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

KINDS = ("NO", "MULTI_GPU", "MULTI_CPU", "FSDP")
SHARDED_OPTIMIZERS = ("torch-adamw", "torch-adam", "torch-sgd", "torch-rmsprop", "torch-nadam", "torch-radam")


def count_processes(config: TrainingConfig) -> int:
    """`num_processes`, or what the file that `accelerate_config` names says where the option is left alone."""
    if config.num_processes > 1 or not config.accelerate_config:
        return config.num_processes
    return int(_read_settings(config.accelerate_config).get("num_processes", 1))


def wants_sharding(config: TrainingConfig) -> bool:
    """Whether the model is to be cut up over the processes: by `fsdp_enable`, or accelerate's own settings file."""
    if config.fsdp_enable or not config.accelerate_config:
        return config.fsdp_enable
    return _read_settings(config.accelerate_config).get("distributed_type") == "FSDP"


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
    if wants_sharding(config):
        version = (settings.get("fsdp_config") or {}).get("fsdp_version", config.fsdp_version)
        yield from _find_sharding_faults(config, int(version))


def _find_sharding_faults(config: TrainingConfig, version: int) -> Iterator[Fault]:
    reason = "a model that is cut up over processes (FSDP) is trained without it"
    kept = ("default", "gaussian")
    for is_wrong, option, allowed in (
        (config.controlnet, "controlnet", "false"),
        (config.model_type == "lora" and config.lora_type != "standard", "lora_type", "standard"),
        (config.model_type == "lora" and config.lora_init_type not in kept, "lora_init_type", ", ".join(kept)),
        (is_quantised(config), "base_model_precision", "no_change, bf16, fp16, fp32"),
        (config.optimizer not in SHARDED_OPTIMIZERS, "optimizer", ", ".join(SHARDED_OPTIMIZERS)),
        (config.dynamo_backend != "no", "dynamo_backend", "no"),
        (config.mixed_precision == "fp16", "mixed_precision", "no, bf16"),
    ):
        if is_wrong:
            yield Fault(option, getattr(config, option), "", reason, allowed)
    if version != 2:
        yield Fault("fsdp_version", version, "", "the engine cuts models up by FSDP2 alone", "2")
    if count_processes(config) < 2:
        yield Fault("fsdp_enable", True, "", "one process has nobody to share the model with", "num_processes from 2")


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
