"""Names of options: every spelling that is known, and which one is meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from flowtuner.options.config import TrainingConfig
from flowtuner.options.fields import Section, closest, extra_of

# Keys that SimpleTuner's own files and forms carry and that mean nothing here.
IGNORED = re.compile(
    r"__\w+__|_comment\w*|\$schema|aspect_ratio_bucketing\w*|repeats|ez_model_type"
    r"|merge_environment_config|preserve_defaults|create_backup|configs_dir"
)


@dataclass(frozen=True)
class Spelling:
    """One way to write an option; `negated` ones say the opposite."""

    option: str
    legacy: bool = False
    negated: bool = False


def bare_name(key: str) -> str:
    """A key without dashes in front, with underscores inside."""
    return key.strip().lstrip("-").replace("-", "_")


def is_ignored(key: str) -> bool:
    """Says whether a key is dropped without a word."""
    return IGNORED.fullmatch(bare_name(key)) is not None


def find_spelling(key: str) -> Spelling | None:
    """The option that a key means, if any."""
    return spellings(TrainingConfig).get(bare_name(key))


def suggest(name: str) -> str | None:
    """The known option that is most like a name."""
    known = spellings(TrainingConfig)
    near = closest(bare_name(name), list(known))
    return known[near].option if near else None


@cache
def spellings(model: type[Section]) -> Mapping[str, Spelling]:
    """Every spelling of every field of a model."""
    table: dict[str, Spelling] = {}
    for name, field in model.model_fields.items():
        extra = extra_of(field)
        table |= {alias: Spelling(name, legacy=True) for alias in extra.get("aliases", ())}
        table |= {alias: Spelling(name, legacy=True, negated=True) for alias in extra.get("negated", ())}
    table |= {name: Spelling(name) for name in model.model_fields}
    return MappingProxyType(table)


@cache
def environment_names() -> Mapping[str, str]:
    """Environment variables that CONFIG_BACKEND=env reads, and the option each one sets."""
    table = {name.upper(): name for name in TrainingConfig.model_fields}
    for name, field in TrainingConfig.model_fields.items():
        table |= {variable: name for variable in extra_of(field).get("env", ())}
    return MappingProxyType(table)
