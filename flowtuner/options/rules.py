"""Rules between options: what two right values must not say together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flowtuner.errors import Fault
from flowtuner.options.config import TrainingConfig
from flowtuner.options.origin import DEFAULT, Origin

MAX_MEGAPIXELS = 5
MIN_PIXELS = 16
RESOLUTION = re.compile(r"\d+(\.\d+)?|\d+x\d+")
HUB_ID = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")


@dataclass(frozen=True)
class Conflict:
    """What a rule found: the options it is about, and what to do."""

    options: tuple[str, ...]
    problem: str
    allowed: str = ""
    suggestion: str = ""


def check_rules(config: TrainingConfig, origins: Mapping[str, Origin], broken: set[str]) -> list[Fault]:
    """Every broken rule; rules about options that are wrong in themselves are left out."""
    return [
        Fault(
            conflict.options[0],
            getattr(config, conflict.options[0]),
            "" if (origin := origins.get(conflict.options[0], DEFAULT)).kind == "default" else str(origin),
            conflict.problem,
            conflict.allowed,
            conflict.suggestion,
        )
        for rule in RULES
        for conflict in rule(config)
        if not broken.intersection(conflict.options)
    ]


def _length(config: TrainingConfig) -> Iterator[Conflict]:
    names = ("max_train_steps", "num_train_epochs")
    if config.max_train_steps and config.num_train_epochs:
        yield Conflict(
            names,
            f"and num_train_epochs={config.num_train_epochs} both say how long the run is",
            "one of them above 0",
            "Set the other to 0.",
        )
    if not config.max_train_steps and not config.num_train_epochs:
        yield Conflict(names, "and num_train_epochs are both 0", "one of them above 0", "Set max_train_steps.")
    if 0 < config.max_train_steps < config.lr_warmup_steps:
        yield Conflict(
            ("lr_warmup_steps", "max_train_steps"),
            f"is longer than the run of {config.max_train_steps} steps",
            f"0 to {config.max_train_steps}",
        )


def _optimizer(config: TrainingConfig) -> Iterator[Conflict]:
    if (config.optimizer_beta1 is None) != (config.optimizer_beta2 is None):
        given, absent = ("optimizer_beta1", "optimizer_beta2")
        if config.optimizer_beta1 is None:
            given, absent = absent, given
        yield Conflict((given, absent), f"needs {absent} too", "both betas or none")
    settings = config.optimizer_config
    for part in settings.split(",") if isinstance(settings, str) else ():
        if not re.fullmatch(r"\s*\w+\s*=\s*\S.*", part):
            yield Conflict(("optimizer_config",), f"has a part that is no setting: {part!r}", "key=value,key=value")


def _sizes(config: TrainingConfig) -> Iterator[Conflict]:
    kind, size = config.resolution_type, config.resolution
    names = ("resolution", "resolution_type")
    if kind == "area" and size > MAX_MEGAPIXELS:
        yield Conflict(
            names, "looks like pixels, but resolution_type=area means megapixels", suggestion="1.0 is 1024 x 1024."
        )
    if kind != "area" and size < MIN_PIXELS:
        yield Conflict(names, f"looks like megapixels, but resolution_type={kind} means pixels", f"from {MIN_PIXELS}")
    if config.maximum_image_size and not config.target_downsample_size:
        yield Conflict(("maximum_image_size", "target_downsample_size"), "needs target_downsample_size too")
    if (config.minimum_image_size or 0) > (config.maximum_image_size or math.inf):
        yield Conflict(("minimum_image_size", "maximum_image_size"), "is larger than maximum_image_size")


def _model(config: TrainingConfig) -> Iterator[Conflict]:
    if config.quantization_config and config.model_type != "lora":
        yield Conflict(("quantization_config", "model_type"), "needs model_type=lora")
    if config.ramtorch and config.enable_group_offload:
        yield Conflict(("ramtorch", "enable_group_offload"), "excludes enable_group_offload")
    if config.fsdp_enable and config.deepspeed_config:
        yield Conflict(("fsdp_enable", "deepspeed_config"), "excludes deepspeed_config")
    if config.timestep_bias_begin > config.timestep_bias_end:
        yield Conflict(("timestep_bias_begin", "timestep_bias_end"), "lies after timestep_bias_end")


def _validation(config: TrainingConfig) -> Iterator[Conflict]:
    if config.validation_method == "external-script" and not config.validation_external_script:
        yield Conflict(("validation_method", "validation_external_script"), "needs validation_external_script too")
    if config.validation_adapter_path and config.validation_adapter_config:
        yield Conflict(("validation_adapter_path", "validation_adapter_config"), "excludes validation_adapter_config")
    for part in config.validation_resolution.split(","):
        size = part.strip().lower()
        if not RESOLUTION.fullmatch(size) or not all(float(edge) for edge in size.split("x")):
            yield Conflict(
                ("validation_resolution",),
                f"has a part that is no size: {part.strip()!r}",
                "an edge such as 1024, WIDTHxHEIGHT such as 1024x768, several with commas",
            )


def _publishing(config: TrainingConfig) -> Iterator[Conflict]:
    if config.hub_model_id and not HUB_ID.fullmatch(config.hub_model_id.removeprefix("https://huggingface.co/")):
        yield Conflict(("hub_model_id",), "is no repository name", "owner/name or a name, without spaces")
    owner = config.push_to_hub_organization
    named = (config.hub_model_id or "").removeprefix("https://huggingface.co/").partition("/")
    if owner and named[1] and named[0] != owner:
        problem = f"belongs to {named[0]}, and push_to_hub_organization says {owner}"
        yield Conflict(("hub_model_id", "push_to_hub_organization"), problem, suggestion="Keep one of the two owners.")
    if (config.push_to_hub or config.push_checkpoints_to_hub) and config.hub_model_id and not (named[1] or owner):
        yield Conflict(
            ("hub_model_id",), "names no owner", "owner/name, where the owner is you or an organisation of yours"
        )
    if config.disk_low_action == "script" and not config.disk_low_script:
        yield Conflict(("disk_low_action", "disk_low_script"), "needs disk_low_script too")


RULES: tuple[Callable[[TrainingConfig], Iterator[Conflict]], ...] = (
    _length,
    _optimizer,
    _sizes,
    _model,
    _validation,
    _publishing,
)
