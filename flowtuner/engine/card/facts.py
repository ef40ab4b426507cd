"""What a model card is made of, and what of it may be shown to everybody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from flowtuner.engine.families import choose_source
from flowtuner.engine.family import Family
from flowtuner.options import DatasetEntry, LoadedConfig, TrainingConfig, hide_secrets
from flowtuner.options.redaction import HIDDEN

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SIGN_IN = re.compile(r"(?<=://)[^/@\s]+@")
# What calls other machines or commands; nobody who reads the card can use it.
KEPT_BACK = ("publishing_config", "webhook_config", "post_upload_script", "post_checkpoint_script", "hub_block")


@dataclass(frozen=True)
class CardFacts:
    """A finished run, as its card tells of it."""

    loaded: LoadedConfig
    family: type[Family]
    step: int
    pictures: Mapping[str, int] = field(default_factory=dict)
    """How many pictures each dataset has."""

    @property
    def config(self) -> TrainingConfig:
        """The run's options."""
        return self.loaded.config

    @property
    def is_lora(self) -> bool:
        """Whether an adapter was trained, and not the model itself."""
        return self.config.model_type == "lora"

    @property
    def title(self) -> str:
        """What the model is called."""
        return (self.config.hub_model_id or Path(self.config.output_dir).name).rpartition("/")[2]

    @property
    def base_model(self) -> str | None:
        """The Hub's name of the model that was trained from; None where it was a folder of this machine."""
        source = str(choose_source(self.config))
        return source if HUB_ID.fullmatch(source) and not Path(source).is_dir() else None

    @property
    def datasets(self) -> Sequence[DatasetEntry]:
        """The entries that hold pictures to learn from."""
        return [entry for entry in self.loaded.datasets if str(entry.id) in self.pictures]


def public_options(loaded: LoadedConfig) -> dict[str, Any]:
    """The options of a run without secrets, and with names in place of local paths."""
    values = loaded.config.model_dump(mode="json")
    shown = hide_secrets(values)
    # An address may lose its sign-in and stay; what holds a secret anywhere else goes as a whole.
    told = {key for key, value in values.items() if shown[key] == value or isinstance(value, str)}
    kept = {key: shown[key] for key in values if key in told and key not in KEPT_BACK and shown[key] != HIDDEN}
    public: dict[str, Any] = public_value(kept)
    return public


def public_value(value: Any) -> Any:
    """A copy of nested values in which local paths are names only and addresses carry no sign-in."""
    if isinstance(value, Mapping):
        return {str(key): public_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(item) for item in value]
    if not isinstance(value, str):
        return value
    text = SIGN_IN.sub("", value)
    is_path = text.startswith(("/", "~", "file://")) or re.match(r"[A-Za-z]:[\\/]", text)
    return PurePath(text.replace("\\", "/")).name if is_path and "\n" not in text else text
