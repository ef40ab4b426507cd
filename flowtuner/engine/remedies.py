"""Changes of options that save memory, the least intrusive first, and how they are said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from flowtuner.engine.formats import is_quantised
from flowtuner.engine.processes import count_processes

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

Change = dict[str, object]
INT8: Change = {"base_model_precision": "int8-quanto"}
INT4: Change = {"base_model_precision": "int4-quanto"}
SMALL: Change = {"optimizer": "adamw_bf16"}
LORA: Change = {"model_type": "lora", "lora_type": "standard"}
CUT_UP: Change = {"fsdp_enable": True, "optimizer": "torch-adamw"}
LENT: Change = {"enable_group_offload": True, "gradient_checkpointing": True}


def list_changes(config: TrainingConfig) -> Iterator[Change]:
    """What may be tried, one thing and then several at once."""
    one_by_one: Change = {"train_batch_size": 1} if config.train_batch_size > 1 else {}
    recomputed: Change = {} if config.gradient_checkpointing else {"gradient_checkpointing": True}
    if recomputed:
        yield recomputed
    if one_by_one:
        yield one_by_one | {"gradient_checkpointing": True}
    if config.model_type == "full" and not config.controlnet:
        yield from _list_for_full(config, one_by_one)
    elif not is_quantised(config):
        if config.model_type == "lora" and config.lora_type == "standard" and not config.enable_group_offload:
            yield LENT
        yield INT8
        yield INT4
        yield INT8 | one_by_one | recomputed
    elif config.base_model_precision != "int4-quanto":
        yield INT4
        yield INT4 | one_by_one | recomputed


def describe_change(change: Mapping[str, object]) -> str:
    """A change as a person would write it."""
    return " with ".join(f"{name}={str(value).lower()}" for name, value in change.items())


def _list_for_full(config: TrainingConfig, one_by_one: Change) -> Iterator[Change]:
    plain: Change = {"use_ema": False} if config.use_ema else {}
    if plain:
        yield plain
    yield SMALL
    if plain:
        yield plain | SMALL
    if one_by_one:
        yield plain | one_by_one | SMALL
    if count_processes(config) > 1:
        yield CUT_UP
    yield LORA
    yield LORA | INT8
    yield LORA | INT8 | one_by_one
