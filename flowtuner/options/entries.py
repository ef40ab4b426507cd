"""publishing_config and webhook_config: a list, one object, inline JSON, or a path to JSON become a list of objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowtuner.errors import ConfigError, Fault
from flowtuner.options.documents import Document, parse_json, read_document
from flowtuner.options.fields import closest
from flowtuner.options.origin import Given
from flowtuner.options.places import Places
from flowtuner.options.template import expand

STRUCTURED = ("publishing_config", "webhook_config")
SHAPE = "a list of objects, one object, inline JSON, or a path to a JSON file"
WEBHOOK_ADDRESSES = {"discord": "webhook_url", "raw": "callback_url"}
WEBHOOK_LEVELS = ("debug", "info", "warning", "error", "critical")
WEBHOOK_KEYS = {"webhook_type", *WEBHOOK_ADDRESSES.values(), "log_level", "ssl_no_verify", "message_prefix"}
WEBHOOK_KEYS |= {"auth_token", "signing_secret"}


def read_entries(given: Given, places: Places, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """The entries that a value stands for; raises ConfigError and never shows their contents, which may be secret."""
    document = _read_document(given, places)
    values = document.value if isinstance(document.value, list) else [document.value]
    found, missing = expand([entry for value in values for entry in _flatten(value, given, places)], environ)
    entries: list[dict[str, Any]] = found
    faults = [
        Fault(given.key, f"{{env:{name}}}", document.name, f"names the environment variable {name}, which is not set")
        for name in missing
    ]
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            faults.append(Fault(given.key, None, str(document.origin()), f"entry {number} is no object", SHAPE))
        elif given.key == "webhook_config":
            faults.extend(_check_webhook(entry, number, document))
    if faults:
        raise ConfigError(faults)
    return entries


def _flatten(value: Any, given: Given, places: Places) -> list[Any]:
    if not isinstance(value, str):
        return [value]
    # A repeated flag arrives as a list of texts, each of which may be JSON or a path.
    found = _read_document(Given(given.key, value, given.origin), places).value
    return found if isinstance(found, list) else [found]


def _read_document(given: Given, places: Places) -> Document:
    if isinstance(given.value, list | dict):
        return Document(str(given.origin), given.value, kind=given.origin.kind)
    if not isinstance(given.value, str):
        raise ConfigError([Fault(given.key, given.value, str(given.origin), "has no entries in it", SHAPE)])
    text = given.value.strip()
    if not text:
        return Document(str(given.origin), [], kind=given.origin.kind)
    if text.startswith(("[", "{")):
        return parse_json(text, str(given.origin), given.key)
    # The packaged files are templates: publishing to what a template says would surprise.
    path = places.find(text, packaged=False)
    if path is None:
        raise ConfigError([Fault(given.key, text, str(given.origin), "is neither JSON nor an existing file", SHAPE)])
    return read_document(path, given.key)


def kind_of_webhook(entry: Mapping[str, Any]) -> str:
    """`raw` or `discord`, as the entry says or as its address shows."""
    return str(entry.get("webhook_type") or ("raw" if "callback_url" in entry else "discord")).lower()


def _check_webhook(entry: dict[str, Any], number: int, document: Document) -> list[Fault]:
    kind, name = kind_of_webhook(entry), f"webhook_config[{number}]"
    if kind not in WEBHOOK_ADDRESSES:
        near = closest(kind, list(WEBHOOK_ADDRESSES))
        hint = f"Did you mean {near}?" if near else ""
        return [Fault(f"{name}.webhook_type", kind, document.name, "is no kind of webhook", "discord, raw", hint)]
    faults = [
        Fault(f"{name}.{key}", None, document.name, "is not known", ", ".join(sorted(WEBHOOK_KEYS)))
        for key in entry
        if key not in WEBHOOK_KEYS
    ]
    address = WEBHOOK_ADDRESSES[kind]
    if not str(entry.get(address) or "").startswith(("http://", "https://")):
        faults.append(Fault(f"{name}.{address}", None, document.name, "is required", "an http:// or https:// address"))
    level = str(entry.get("log_level") or "info").lower()
    if level not in WEBHOOK_LEVELS:
        faults.append(Fault(f"{name}.log_level", level, document.name, "is no level", ", ".join(WEBHOOK_LEVELS)))
    return faults
