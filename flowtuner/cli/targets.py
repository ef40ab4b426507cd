"""What the words of a command name: the folder of a run, and destinations by entry, folder or name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from flowtuner.errors import ConfigError, Fault
from flowtuner.publishing.hub import NAMES, PROVIDER, is_hub

Wanted = dict[str, Any] | str
"""An entry of `publishing_config`, or the name of one or of a stored block."""


def find_folder(word: str) -> Path:
    """The folder that a path, the name of an environment or the id of a flow run stands for."""
    folder = Path(word).expanduser()
    if folder.is_dir():
        return folder.resolve()
    found = _folder_of_environment(word) or _folder_of_run(word)
    if found is not None and found.is_dir():
        return found.resolve()
    hint = "give an output folder, a checkpoint-N folder in it, the name of an environment or the id of a flow run"
    gone = f"its output folder {found} is gone" if found else "is no folder"
    raise ConfigError([Fault("PATH", word, "", gone, suggestion=hint)])


def read_targets(words: Sequence[str], entries: Sequence[Mapping[str, Any]] = ()) -> list[Wanted]:
    """The destinations that `--to` names; entries are those of the configuration, if one was given."""
    wanted: list[Wanted] = []
    for word in words:
        wanted += _read_target(word, entries)
    return wanted or [dict(entry) for entry in entries]


def read_entries(text: str) -> list[dict[str, Any]]:
    """Entries written as JSON, one or a list."""
    from flowtuner.options.template import expand

    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError([Fault("destination", None, "", f"is not JSON: {error}")]) from error
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(entry, dict) for entry in found):
        raise ConfigError([Fault("destination", None, "", "is no entry", '{"provider": ..., ...}')])
    filled, missing = expand(found, os.environ)
    if missing:
        raise ConfigError([Fault("destination", f"{{env:{name}}}", "", "is not set") for name in missing])
    return list(filled)


def _read_target(word: str, entries: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    if word.lstrip().startswith(("{", "[")):
        return [*read_entries(word)]
    if word.lower().startswith("hf://"):
        return [{"provider": PROVIDER, "repo_id": word}]
    named = [dict(entry) for entry in entries if entry.get("name") == word or (word in NAMES and is_hub(entry))]
    if named:
        return [*named]
    if "://" in word:
        return [_read_address(word)]
    folder = Path(word).expanduser()
    if folder.is_dir() or os.sep in word or word.startswith((".", "~")):
        return [{"provider": "folder", "path": str(folder.absolute())}]
    return [word]


def _read_address(word: str) -> dict[str, Any]:
    kind, _, place = word.partition("://")
    bucket, _, base_path = place.partition("/")
    if kind.lower() == "s3" and bucket:
        return {"provider": "s3", "bucket": bucket, "base_path": base_path.strip("/")}  # credentials as AWS finds them
    if kind.lower() == "file":
        return {"provider": "folder", "path": unquote(place)}
    allowed = "s3://BUCKET/PATH, hf://OWNER/NAME, a folder, a stored name, or an entry as JSON"
    raise ConfigError([Fault("--to", word, "", "is no address of a destination", allowed)])


def _folder_of_environment(name: str) -> Path | None:
    folder = Path(os.environ.get("FLOWTUNER_CONFIG_DIR") or "config") / name
    if not any((folder / f"config.{kind}").is_file() for kind in ("json", "toml", "env")):
        return None
    from flowtuner.options import load

    return Path(load(env=name).config.output_dir)


def _folder_of_run(word: str) -> Path | None:
    try:
        run_id = UUID(word)
    except ValueError:
        return None
    from flowtuner.jobs.runs import find_output_dir
    from flowtuner.jobs.settings import find_api_url

    return find_output_dir(run_id) if find_api_url() else None
