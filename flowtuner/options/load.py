"""Loads a configuration from all its sources and reports everything that is wrong with it at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flowtuner.errors import ConfigError, Fault
from flowtuner.options.config import TrainingConfig
from flowtuner.options.dataloader import read_datasets
from flowtuner.options.documents import Document, parse_json, read_document
from flowtuner.options.entries import STRUCTURED, read_entries
from flowtuner.options.faults import translate
from flowtuner.options.loaded import LoadedConfig
from flowtuner.options.merge import merge
from flowtuner.options.origin import DEFAULT, Given, Origin
from flowtuner.options.paths import resolve_paths
from flowtuner.options.places import Places
from flowtuner.options.rules import check_rules
from flowtuner.options.sources import Sources, gather

# Stand-ins for required options that are wrong or absent, so that the others can still be checked.
STAND_INS = {"model_family": "pixart_sigma", "model_type": "full", "output_dir": "output"}
FILE_OPTIONS = ("config", "env")

Check = Callable[[TrainingConfig], Iterable[Fault]]
"""A check of another room, whose faults belong into the same list."""


def load(
    *,
    env: str | None = None,
    config_file: Path | None = None,
    flags: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    config_dir: Path | None = None,
    checks: Sequence[Check] = (),
    fills_in: bool = True,
) -> LoadedConfig:
    """The configuration of a run: defaults, then the config file, environment, flags and values, each over the last.

    Without `fills_in` no `{env:NAME}` is replaced: for those who may not know what this machine's variables hold.
    Raises ConfigError with every fault.
    """
    secrets = environ if fills_in else {}
    faults: list[Fault] = []
    warnings: list[str] = []
    here = Path.cwd()
    places = Places(here, here / (config_dir or environ.get("FLOWTUNER_CONFIG_DIR") or "config"))
    layers, places = gather(Sources(env, config_file, flags, values, environ, places), faults)
    if any(fault.option in FILE_OPTIONS for fault in faults):
        # Without its file a run lacks everything; saying so would bury what is wrong.
        raise ConfigError(faults)
    chosen = merge(layers, secrets, faults, warnings)
    origins = {name: given.origin for name, given in chosen.items()}
    datasets_source = _read_source(chosen, places, faults)
    config, broken = _build(chosen, places, secrets, faults)
    config = resolve_paths(config, chosen, places, faults)
    faults.extend(check_rules(config, origins, broken))
    for check in checks:
        faults.extend(check(config))
    datasets = read_datasets(datasets_source, config, places, secrets, faults) if datasets_source else ()
    if faults:
        raise ConfigError(faults)
    return LoadedConfig(config, datasets, _complete(config, origins), tuple(warnings), places.config_file)


def _complete(config: TrainingConfig, origins: Mapping[str, Origin]) -> dict[str, Origin]:
    return {name: origins.get(name, DEFAULT) for name in type(config).model_fields}


def _read_source(chosen: dict[str, Given], places: Places, faults: list[Fault]) -> Document | None:
    given = chosen.get("data_backend_config")
    if given is None or given.value in ("", [], {}):
        chosen.pop("data_backend_config", None)
        allowed = "a JSON file with a list of dataset entries"
        faults.append(Fault("data_backend_config", None, "", "is required", allowed))
        return None
    try:
        return _open_source(given, chosen, places)
    except ConfigError as error:
        faults.extend(error.faults)
        chosen.pop("data_backend_config", None)
        return None


def _open_source(given: Given, chosen: dict[str, Given], places: Places) -> Document:
    if isinstance(given.value, list | dict):
        # Entries handed over by a program need no file.
        chosen.pop("data_backend_config")
        return Document(str(given.origin), given.value, kind=given.origin.kind)
    text = str(given.value).strip()
    if text.startswith("["):
        chosen.pop("data_backend_config")
        return parse_json(text, str(given.origin), given.key)
    path = places.find(text)
    if path is None:
        looked = ", ".join(str(place) for place in places.candidates(text))
        raise ConfigError(
            [
                Fault(
                    given.key,
                    text,
                    str(given.origin),
                    "does not exist",
                    "an existing JSON file",
                    f"Looked for {looked}.",
                )
            ]
        )
    chosen["data_backend_config"] = Given(given.key, str(path), given.origin)
    return read_document(path, given.key)


def _build(
    chosen: Mapping[str, Given], places: Places, environ: Mapping[str, str], faults: list[Fault]
) -> tuple[TrainingConfig, set[str]]:
    values = {name: given.value for name, given in chosen.items()}
    broken: set[str] = set()
    for name in STRUCTURED:
        if name in values:
            try:
                values[name] = read_entries(chosen[name], places, environ)
            except ConfigError as error:
                faults.extend(error.faults)
                values.pop(name)
    try:
        return TrainingConfig.model_validate(values), broken
    except ValidationError as error:
        found = translate(
            error,
            TrainingConfig,
            name=str,
            origin=lambda name: str(chosen[name].origin) if name in chosen else "",
        )
        faults.extend(found)
        broken = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    kept = {name: value for name, value in values.items() if name not in broken}
    stand_ins = {name: value for name, value in STAND_INS.items() if name in broken}
    return TrainingConfig.model_validate(kept | stand_ins), broken
