"""Makes the paths among the options absolute, and checks the files that must exist."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowtuner.errors import ConfigError, Fault
from flowtuner.options.config import TrainingConfig
from flowtuner.options.dataloader import fill_placeholders
from flowtuner.options.documents import read_document
from flowtuner.options.fields import extra_of
from flowtuner.options.lycoris import find_lycoris_faults
from flowtuner.options.origin import Given
from flowtuner.options.places import Places


def resolve_paths(
    config: TrainingConfig, chosen: Mapping[str, Given], places: Places, faults: list[Fault]
) -> TrainingConfig:
    """A copy of the options with absolute paths."""
    config = config.model_copy(update={"output_dir": places.create(config.output_dir)})
    updates: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value, role = getattr(config, name), extra_of(field).get("path")
        if value is None or role is None or name == "output_dir":
            continue
        if role == "created":
            updates[name] = places.create(fill_placeholders(str(value), config))
        elif role == "source":
            updates[name] = _resolve_source(str(value), places)
        elif name != "data_backend_config":
            updates[name] = _resolve_existing(name, chosen[name], places, faults)
    updates.setdefault("cache_dir", config.output_dir / "cache")
    updates.setdefault("logging_dir", config.output_dir / "logs")
    updates["lycoris_config"] = _read_lycoris(config, chosen, places, faults)
    return config.model_copy(update=updates)


def _resolve_source(text: str, places: Places) -> str:
    # What looks like owner/name may be a Hub id: only an existing path, or a text that can be nothing else, is a path.
    path = places.create(text)
    return str(path) if os.path.exists(path) or text.startswith(("/", "./", "../", "~")) else text


def _resolve_existing(name: str, given: Given, places: Places, faults: list[Fault]) -> Path | None:
    path = places.find(str(given.value))
    if path is None:
        faults.append(Fault(name, given.value, str(given.origin), "does not exist", "an existing file"))
        return None
    if name == "user_prompt_library":
        _check_prompts(path, name, given, faults)
    return path


def _check_prompts(path: Path, name: str, given: Given, faults: list[Fault]) -> None:
    try:
        prompts = read_document(path, name).value
    except ConfigError as error:
        faults.extend(error.faults)
        return
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str | dict) for prompt in prompts.values()):
        faults.append(Fault(name, given.value, str(given.origin), "holds no prompts", '{"name": "prompt", ...}'))


def _read_lycoris(
    config: TrainingConfig, chosen: Mapping[str, Given], places: Places, faults: list[Fault]
) -> dict[str, Any] | None:
    """The LyCORIS settings themselves; None means the built-in ones."""
    value = config.lycoris_config
    if config.model_type != "lora" or config.lora_type != "lycoris" or value is None:
        return None
    given = chosen.get("lycoris_config")
    origin = str(given.origin) if given else ""
    if isinstance(value, str):
        path = places.find(value)
        if path is None:
            # Forms send defaults back: naming the default file is no promise that it exists.
            if given and value != type(config).model_fields["lycoris_config"].default:
                faults.append(Fault("lycoris_config", value, origin, "does not exist", "an existing JSON file"))
            return None
        try:
            value = read_document(path, "lycoris_config").value
        except ConfigError as error:
            faults.extend(error.faults)
            return None
    faults.extend(find_lycoris_faults(value, origin))
    return json.loads(json.dumps(value)) if isinstance(value, dict) else None
