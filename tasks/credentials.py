"""Credentials that stand in a flow's parameters, where Prefect keeps them for everybody to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flowtuner.errors import Fault
from flowtuner.options import hide_secrets
from flowtuner.options.names import find_spelling
from flowtuner.options.template import PLACEHOLDER

OPTION, TOKEN = "publishing_config", "hub_token"


def find_credentials(entries: Any, origin: str) -> list[Fault]:
    """One fault per entry that says a credential instead of naming a stored block or an environment variable."""
    if isinstance(entries, str) and entries.strip().startswith(("[", "{")):
        try:
            entries = json.loads(entries)
        except ValueError:
            return []  # whoever reads it next says what is wrong
    found = entries if isinstance(entries, list) else [entries]
    return [_refuse(f"{origin}[{index}]") for index, entry in enumerate(found) if _has_credentials(entry)]


def find_credentials_in_options(config: Mapping[str, Any]) -> list[Fault]:
    """The same for the options of a run, whatever spelling they have."""
    faults = []
    for key, value in config.items():
        spelling = find_spelling(key)
        if spelling is not None and spelling.option == OPTION:
            faults += find_credentials(value, OPTION)
        if spelling is not None and spelling.option == TOKEN and _has_credentials({TOKEN: value}):
            faults.append(_refuse(key, TOKEN))
    return faults


def _has_credentials(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return False
    said = _without_placeholders(dict(entry))
    return bool(hide_secrets(said) != said)


def _without_placeholders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_placeholders(item) for key, item in value.items()}
    if isinstance(value, str):
        return PLACEHOLDER.sub("", value)
    return value


def _refuse(origin: str, option: str = OPTION) -> Fault:
    return Fault(
        option,
        None,
        origin,
        "holds credentials, which Prefect keeps readable with the run's parameters; renew them",
        '{"provider": ..., "block": NAME} or "{env:NAME}"' if option == OPTION else 'hub_block=NAME or "{env:NAME}"',
        "save them as a block, or start the run with `flowtuner train`, which does",
    )
