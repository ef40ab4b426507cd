"""Which pictures are encoded together: a function of the data set alone, whatever is cached already."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from flowtuner.engine.cache.store import Store
from flowtuner.engine.data.sample import Sample
from flowtuner.engine.run import Portion

KeyOf = Callable[[Sample], str]


@dataclass
class _Group:
    """The pictures of one size in one store: positions only, for there may be millions."""

    store: Store
    shape: tuple[int, ...]
    at_once: int
    rows: array[int] = field(default_factory=lambda: array("q"))
    places: array[int] = field(default_factory=lambda: array("b"))


@dataclass(frozen=True)
class Batch:
    """Pictures that are encoded together, as far as they are missing."""

    store: Store
    size: int
    missing: tuple[tuple[int, int], ...]


class PictureBatches:
    """The distinct pictures of a run, references included, in batches: what is beside a picture is in its last bits."""

    def __init__(
        self,
        samples: Sequence[Sample],
        stores: Mapping[str, Store],
        key_of: KeyOf,
        batch_size: int,
        filled: Container[str] | None = None,
    ) -> None:
        self._samples = samples
        self._stores = stores
        self._key_of = key_of
        self._batch_size = batch_size
        self._filled = filled
        self._missing: set[tuple[int, int]] = set()
        self._groups = self._sort_in()

    def of(self, portion: Portion) -> list[Batch]:
        """The batches of one portion, by store, the largest pictures first: too little memory is noticed at once."""
        return [batch for number, batch in enumerate(self._cut()) if portion.takes(number)]

    def read(self, batch: Batch) -> list[Sample]:
        """The missing pictures of a batch."""
        return [self._at(row, place) for row, place in batch.missing]

    def around(self, sample: Sample) -> list[Sample]:
        """The pictures that a picture is encoded together with, itself among them."""
        group, number = self._numbers[id(self._stores[sample.dataset_id]), self._key_of(sample)]
        start = number - number % group.at_once
        rows, places = (column[start : start + group.at_once] for column in (group.rows, group.places))
        return [self._at(row, place) for row, place in zip(rows, places, strict=True)]

    def _sort_in(self) -> list[_Group]:
        groups: dict[tuple[int, tuple[int, ...]], _Group] = {}
        seen: set[tuple[int, bytes]] = set()
        for row, sample in enumerate(self._samples):
            for place, each in enumerate((sample, *sample.references)):
                store, key = self._stores[each.dataset_id], self._key_of(each)
                mark = id(store), bytes.fromhex(key)
                if mark in seen:
                    continue
                seen.add(mark)
                shape = each.plan.shape
                # A film is a batch of frames already.
                at_once = self._batch_size if len(shape) == 2 else 1
                group = groups.setdefault((id(store), shape), _Group(store, shape, at_once))
                group.rows.append(row)
                group.places.append(place)
                if key not in store and (self._filled is None or each.dataset_id in self._filled):
                    self._missing.add((row, place))
        order = {
            name: number for number, name in enumerate(dict.fromkeys(id(group.store) for group in groups.values()))
        }
        return sorted(groups.values(), key=lambda g: (order[id(g.store)], -prod(g.shape), g.shape))

    def _cut(self) -> Iterator[Batch]:
        for group in self._groups:
            for start in range(0, len(group.rows), group.at_once):
                end = start + group.at_once
                places = list(zip(group.rows[start:end], group.places[start:end], strict=True))
                yield Batch(group.store, len(places), tuple(one for one in places if one in self._missing))

    @cached_property
    def _numbers(self) -> dict[tuple[int, str], tuple[_Group, int]]:
        return {
            (id(group.store), self._key_of(self._at(row, place))): (group, number)
            for group in self._groups
            for number, (row, place) in enumerate(zip(group.rows, group.places, strict=True))
        }

    def _at(self, row: int, place: int) -> Sample:
        sample = self._samples[row]
        return sample.references[place - 1] if place else sample
