"""Finds destinations by their entry points, so that other people's packages can add theirs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from flowtuner.errors import ConfigError, Fault
from flowtuner.publishing.destination import Destination

GROUP = "flowtuner.destinations"


def known_destinations() -> dict[str, type[Destination]]:
    """Every installed destination by the name of its provider."""
    return {entry_point.name: _load(entry_point) for entry_point in _entry_points()}


def check_entries(entries: Sequence[Mapping[str, Any]], origin: str = "publishing_config") -> list[Fault]:
    """Finds every mistake in the entries of `publishing_config` without reaching anything."""
    faults = []
    for index, entry in enumerate(entries):
        place = f"{origin}[{index}]"
        kind, fault = _find_kind(entry, place)
        faults += [fault] if fault else []
        faults += kind.check_entry(entry, place) if kind else []
    return faults


def open_destinations(entries: Sequence[Mapping[str, Any]], origin: str = "publishing_config") -> list[Destination]:
    """Makes the destinations of a run; raises ConfigError with every fault of every entry."""
    faults: list[Fault] = []
    destinations: list[Destination] = []
    for index, entry in enumerate(entries):
        place = f"{origin}[{index}]"
        kind, fault = _find_kind(entry, place)
        if fault or kind is None:
            faults += [fault] if fault else []
            continue
        try:
            destinations.append(kind.from_entry(entry, place))
        except ConfigError as error:
            faults += error.faults
    faults += _find_twins(destinations, origin)
    if faults:
        raise ConfigError(faults)
    return destinations


def open_wanted(
    wanted: Sequence[Mapping[str, Any] | str], known: Sequence[Mapping[str, Any]] = (), origin: str = "destinations"
) -> list[Destination]:
    """Makes destinations out of entries and of names: of known entries, or of stored blocks."""
    named = {destination.name: entry for entry in known for destination in open_destinations([entry], origin)}
    entries = [named.get(each) or _find_block(each, origin) if isinstance(each, str) else each for each in wanted]
    return open_destinations(entries, origin)


def stored_destinations() -> list[Destination]:
    """Every destination that is kept as a block; Prefect's API must be within reach."""
    return [destination for kind in known_destinations().values() for destination in kind.stored()]


def keep_credentials(entries: Sequence[Mapping[str, Any]], origin: str = "publishing_config") -> list[dict[str, Any]]:
    """The entries with stored blocks in place of their credentials; Prefect's API must be within reach."""
    kept = []
    for index, entry in enumerate(entries):
        place = f"{origin}[{index}]"
        kind, fault = _find_kind(entry, place)
        if fault or kind is None:
            raise ConfigError([fault] if fault else [])
        kept.append(kind.keep_credentials(entry, place))
    return kept


def store_entry(entry: Mapping[str, Any], block: str, origin: str = "destination") -> None:
    """Keeps an entry as a block of this name, with its credentials; Prefect's API must be within reach."""
    kind, fault = _find_kind(entry, origin)
    if fault or kind is None:
        raise ConfigError([fault] if fault else [])
    kind.store(entry, block, origin)


def _find_block(name: str, origin: str) -> Mapping[str, Any]:
    for kind in known_destinations().values():
        if any(destination.name == name for destination in kind.stored()):
            return {"provider": kind.provider, "block": name}
    hint = "`flowtuner destination list` shows those there are, `flowtuner destination add` makes one"
    raise ConfigError([Fault("destinations", name, origin, "no destination has this name", suggestion=hint)])


def _find_kind(entry: Mapping[str, Any], origin: str) -> tuple[type[Destination] | None, Fault | None]:
    if not isinstance(entry, Mapping):
        return None, Fault("publishing_config", entry, origin, "an entry must be an object", '{"provider": ...}')
    wanted = str(entry.get("provider") or entry.get("type") or "").strip().lower()
    points = {entry_point.name: entry_point for entry_point in _entry_points()}
    if wanted in points:
        return _load(points[wanted]), None
    # Only a name that is no provider's own costs loading them all.
    kinds = {name: _load(entry_point) for name, entry_point in points.items()}
    for kind in kinds.values():
        if wanted in kind.aliases:
            return kind, None
    return None, _unknown_provider(wanted, sorted(kinds), origin)


def _unknown_provider(wanted: str, known: list[str], origin: str) -> Fault:
    fault = Fault("provider", wanted or None, origin, "unknown destination", ", ".join(known) or "none is installed")
    if not wanted:
        return replace(fault, problem="the entry names no destination")
    close = difflib.get_close_matches(wanted, known, n=1)
    return replace(fault, suggestion=f"did you mean {close[0]!r}?") if close else fault


def _find_twins(destinations: Iterable[Destination], origin: str) -> list[Fault]:
    faults, seen = [], set()
    for destination in destinations:
        if destination.name in seen:
            faults.append(
                Fault(
                    "name",
                    destination.name,
                    origin,
                    "two destinations have the same name",
                    suggestion='give each entry a "name" of its own',
                )
            )
        seen.add(destination.name)
    return faults


def _entry_points() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda entry_point: entry_point.name)


def _load(entry_point: EntryPoint) -> type[Destination]:
    return cast(type[Destination], entry_point.load())
