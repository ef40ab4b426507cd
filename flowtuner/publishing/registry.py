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
