"""The environments of `config/`: folders with a config.json, a dataloader file and what people note about them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowtuner import durable
from flowtuner.errors import ConfigError, Fault, Terminal
from flowtuner.options.merge import unknown_option
from flowtuner.options.names import bare_name, find_spelling, is_ignored
from flowtuner.options.places import packaged_folders
from flowtuner.options.redaction import HIDDEN, CoveredError, restore_secrets

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
CONFIG, METADATA, DATALOADER = "config.json", ".metadata.json", "multidatabackend.json"
DEFAULT = "default"
RESERVED = ("examples", "webhooks", "lycoris")


class EnvironmentRefused(Terminal):
    """An environment cannot be made, changed or found; `reason` says which of these."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Environment:
    """One environment as it stands on the disk."""

    name: str
    folder: Path
    config: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Changes with every change of the options or the notes."""
        text = json.dumps([self.config, self.metadata], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def dataloader(self) -> Path:
        """Where its dataloader file stands, if it has one of its own."""
        return self.folder / DATALOADER


class EnvironmentStore:
    """All environments below one folder; every change is whole or not at all."""

    def __init__(self, config_dir: Path) -> None:
        self.config_dir = config_dir

    def names(self) -> list[str]:
        """The environments there are, sorted."""
        found = (path.parent.name for path in self.config_dir.glob(f"*/{CONFIG}") if not path.parent.is_symlink())
        return sorted(name for name in found if NAME.fullmatch(name) and name not in RESERVED)

    def read(self, name: str) -> Environment:
        """One environment; `default` always exists."""
        folder = self.folder_of(name)
        if name == DEFAULT and not (folder / CONFIG).is_file():
            return Environment(name, folder, {})
        if not (folder / CONFIG).is_file() or folder.is_symlink():
            raise EnvironmentRefused("missing", f"Configuration '{name}' not found")
        return Environment(name, folder, _read_object(folder / CONFIG), _read_object(folder / METADATA))

    def create(self, name: str, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> Environment:
        """A new environment; refused if there is one."""
        with self._alone():
            self._refuse_present(name)
            return self._write(name, config, metadata)

    def replace(
        self, name: str, config: Mapping[str, Any], metadata: Mapping[str, Any], version: str | None = None
    ) -> Environment:
        """New options for an environment; refused if it changed since `version`."""
        with self._alone():
            present = self.read(name)
            self._refuse_changed(present, version)
            return self._write(name, canonical(config, present.config), present.metadata | dict(metadata))

    def rename(self, name: str, new: str) -> Environment:
        """The same environment under another name."""
        with self._alone():
            present = self.read(name)
            self._refuse_present(new)
            os.rename(present.folder, self.folder_of(new))
            return self._repoint(name, new)

    def copy(self, name: str, new: str) -> Environment:
        """A second environment with the same options and dataloader."""
        with self._alone():
            present = self.read(name)
            self._refuse_present(new)
            self.folder_of(new).mkdir(parents=True)
            for file in (CONFIG, METADATA, DATALOADER):
                if (present.folder / file).is_file():
                    shutil.copyfile(present.folder / file, self.folder_of(new) / file)
            return self._repoint(name, new)

    def delete(self, name: str, version: str | None = None) -> None:
        """Removes an environment with everything in its folder."""
        with self._alone():
            present = self.read(name)
            self._refuse_changed(present, version)
            shutil.rmtree(present.folder, ignore_errors=True)

    def write_dataloader(self, name: str, entries: Sequence[Any], *, replaces: bool) -> Path:
        """Writes an environment's dataloader file and points its options there."""
        with self._alone():
            present = self.read(name)
            if present.dataloader.exists() and not replaces:
                raise EnvironmentRefused("present", f"{name}/{DATALOADER} already exists; ask to replace it")
            durable.write_json(present.dataloader, list(entries))
            self._write(name, present.config | {"data_backend_config": f"{name}/{DATALOADER}"}, present.metadata)
            return present.dataloader

    def folder_of(self, name: str) -> Path:
        """Where an environment lives; refuses what is no name."""
        if not NAME.fullmatch(name) or name in RESERVED:
            raise EnvironmentRefused(
                "name", f"'{name[:100]}' is no name for a configuration: letters, digits, '.', '_' and '-', at most 100"
            )
        return self.config_dir / name

    def _write(self, name: str, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> Environment:
        folder = self.folder_of(name)
        folder.mkdir(parents=True, exist_ok=True)
        kept = canonical(config, config)
        for file, value in ((CONFIG, kept), (METADATA, dict(metadata))):
            durable.write_json(folder / file, value)
            (folder / file).chmod(0o600)  # options may hold credentials
        return Environment(name, folder, kept, dict(metadata))

    def _repoint(self, name: str, new: str) -> Environment:
        moved = self.read(new)
        config = moved.config
        if config.get("data_backend_config") in (f"{name}/{DATALOADER}", f"config/{name}/{DATALOADER}"):
            config = config | {"data_backend_config": f"{new}/{DATALOADER}"}
        return self._write(new, config, moved.metadata | {"name": new})

    def _refuse_present(self, name: str) -> None:
        folder = self.folder_of(name)
        if folder.exists() or folder.is_symlink():
            raise EnvironmentRefused("present", f"Configuration '{name}' already exists")

    def _refuse_changed(self, present: Environment, version: str | None) -> None:
        if version not in (None, "*", present.version):
            raise EnvironmentRefused(
                "changed", f"Configuration '{present.name}' was changed by somebody else since you read it"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.config_dir.mkdir(parents=True, exist_ok=True)
        with (self.config_dir / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def canonical(given: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options under their own names; of `x` and `--x` the one that differs from what is stored counts.

    Raises ConfigError for unknown names, and where both differ.
    """
    values: dict[str, list[Any]] = {}
    faults = []
    for key, value in given.items():
        spelling = find_spelling(str(key))
        if is_ignored(str(key)):
            continue
        if spelling is None:
            faults.append(unknown_option(str(key)))
            continue
        values.setdefault(spelling.option if not spelling.legacy else bare_name(str(key)), []).append(value)
    chosen: dict[str, Any] = {}
    for name, several in values.items():
        before = stored.get(name)
        try:
            changed = [value for value in map(lambda one: restore_secrets(one, before), several) if value != before]
        except CoveredError:
            faults.append(Fault(name, HIDDEN, "", "is hidden and was changed", suggestion="Give the credential again."))
            continue
        if len({json.dumps(value, sort_keys=True, default=str) for value in changed}) > 1:
            faults.append(Fault(name, None, f"--{name} and {name}", "is given twice with different values"))
        chosen[name] = changed[0] if changed else before
    if faults:
        raise ConfigError(faults)
    return {name: value for name, value in chosen.items() if value not in (None, "")}


def doubled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options under both spellings, as scripts for SimpleTuner look for them."""
    return dict(config) | {f"--{name}": value for name, value in config.items()}


def starter_dataloader(name: str) -> list[dict[str, Any]]:
    """A dataloader to begin with: one folder of captioned pictures and the text cache."""
    return [
        {
            "id": f"{name}-images",
            "type": "local",
            "dataset_type": "image",
            "instance_data_dir": "",
            "caption_strategy": "textfile",
            "resolution": 1024,
            "resolution_type": "pixel_area",
            "cache_dir_vae": f"cache/vae/{name}",
        },
        {
            "id": f"{name}-text-embeds",
            "type": "local",
            "dataset_type": "text_embeds",
            "default": True,
            "cache_dir": f"cache/text/{name}",
        },
    ]


def examples() -> dict[str, Path]:
    """The examples that come with Flowtuner, by name."""
    return {path.parent.name: path.parent for path in sorted(packaged_folders()[1].glob(f"*/{CONFIG}"))}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = durable.read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise EnvironmentRefused("broken", f"{path.parent.name}/{path.name} is no JSON: {error}") from error
    return value if isinstance(value, dict) else {}
