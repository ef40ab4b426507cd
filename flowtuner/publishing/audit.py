"""What destinations hold of a run, listed and proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.destination import Destination
from flowtuner.publishing.manifest import Manifest


@dataclass(frozen=True)
class Holding:
    """One unit that a destination holds, what is wrong with it, or why the destination could not say."""

    destination: str
    name: str = ""
    step: int = 0
    created: str = ""
    files: int = 0
    bytes: int = 0
    uri: str | None = None
    faults: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found to be wrong."""
        return not self.faults


def list_holdings(destinations: Iterable[Destination], run: str) -> list[Holding]:
    """What stands at each destination of a run, by the manifests there; the newest last."""
    return [holding for destination in destinations for holding in _answers(destination, run, _believe)]


def verify_holdings(
    destinations: Iterable[Destination], run: str, expected: Sequence[str] = (), *, deep: bool = False
) -> list[Holding]:
    """The same with every unit looked at, byte by byte if `deep`; what is expected and not there counts as missing."""
    found = []
    for destination in destinations:
        held = _answers(destination, run, lambda each, unit: each.verify(unit, deep=deep))
        missing = [name for name in expected if name not in {holding.name for holding in held}]
        found += held
        if all(holding.name for holding in held):  # otherwise nobody knows what is there
            found += [Holding(destination.name, name, faults=("is not published there",)) for name in missing]
    return found


def _believe(destination: Destination, unit: Manifest) -> list[str]:
    return []


def _answers(destination: Destination, run: str, judge: Any) -> list[Holding]:
    try:
        return list(_describe(destination, run, judge))
    except (PublishError, DestinationDown) as error:
        return [Holding(destination.name, faults=(str(error),))]


def _describe(destination: Destination, run: str, judge: Any) -> Iterator[Holding]:
    for unit in destination.units(run):
        uri, faults = destination.uri_of(unit), tuple(judge(destination, unit))
        yield Holding(destination.name, unit.name, unit.step, unit.created, len(unit.files), unit.size, uri, faults)
