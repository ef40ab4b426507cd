"""The samples of a run on disk: a million of them take a few bytes of memory each, and are decoded when drawn."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from flowtuner.engine.data.sample import FilmPlan, Plan, Sample, Shapes

Numbers = npt.NDArray[np.int64]

READ_ROWS = 1000
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Columns:
    """What is known of all samples at once: the number of each one's dataset, and of its shapes."""

    datasets: list[str]
    shapes: list[Shapes]
    dataset_of: Numbers
    shapes_of: Numbers

    def rows_of(self, dataset: str) -> Numbers:
        """The positions of a dataset's samples."""
        if dataset not in self.datasets:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.dataset_of == self.datasets.index(dataset))


class SampleFile(Sequence[Sample]):
    """Samples in a file without a name, which ends with the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file, name = tempfile.mkstemp(dir=folder, prefix=".samples")
        os.unlink(name)
        weakref.finalize(self, os.close, self._file)
        self._waiting = bytearray()
        self._ends = array("Q", [0])
        self._dataset_of = array("q")
        self._shapes_of = array("q")
        self._datasets: list[str] = []
        self._shapes: dict[Shapes, int] = {}

    def append(self, sample: Sample) -> None:
        """Adds a sample at the end."""
        record = json.dumps(self._pack(sample), separators=(",", ":")).encode()
        self._waiting += record
        if len(self._waiting) >= BLOCK_BYTES:
            self.finish()
        self._ends.append(self._ends[-1] + len(record))
        self._dataset_of.append(self._number(sample.dataset_id))
        self._shapes_of.append(self._shapes.setdefault(sample.shapes, len(self._shapes)))

    def finish(self) -> None:
        """Makes what was added readable."""
        while self._waiting:
            del self._waiting[: os.write(self._file, self._waiting)]

    @property
    def columns(self) -> Columns:
        """Datasets and shapes of all samples, without reading any."""
        return Columns(self._datasets, list(self._shapes), np.asarray(self._dataset_of), np.asarray(self._shapes_of))

    def __len__(self) -> int:
        return len(self._dataset_of)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(place, slice):
            return Selection(self, np.arange(len(self), dtype=np.int64)[place])
        start, end = self._ends[range(len(self))[place]], self._ends[range(len(self))[place] + 1]
        return self._unpack(os.pread(self._file, end - start, start))

    def __iter__(self) -> Iterator[Sample]:
        for first in range(0, len(self), READ_ROWS):
            edges = self._ends[first : first + READ_ROWS + 1]
            block = os.pread(self._file, edges[-1] - edges[0], edges[0])
            for start, end in itertools.pairwise(edges):
                yield self._unpack(block[start - edges[0] : end - edges[0]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]  # it grows

    def _unpack(self, record: bytes) -> Sample:
        return _read(json.loads(record), self._datasets)

    def _number(self, dataset: str) -> int:
        if dataset not in self._datasets:
            self._datasets.append(dataset)
        return self._datasets.index(dataset)

    def _pack(self, sample: Sample) -> list[Any]:
        plan = sample.plan
        return [
            self._number(sample.dataset_id),
            sample.path,
            sample.content,
            sample.captions,
            [plan.orientation, *plan.resize, *plan.crop, *([plan.frames] if isinstance(plan, FilmPlan) else [])],
            [self._pack(one) for one in sample.references],
        ]


class Selection(Sequence[Sample]):
    """Some of the samples of a file, by their positions."""

    def __init__(self, samples: SampleFile, rows: Numbers) -> None:
        self._samples = samples
        self._rows = rows

    @property
    def columns(self) -> Columns:
        """Datasets and shapes of the chosen samples."""
        known = self._samples.columns
        return Columns(known.datasets, known.shapes, known.dataset_of[self._rows], known.shapes_of[self._rows])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(place, slice):
            return Selection(self._samples, self._rows[place])
        return self._samples[int(self._rows[place])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to any other sequence of the same samples


def select(samples: Sequence[Sample], rows: Iterable[int]) -> Sequence[Sample]:
    """The samples at these positions, without reading them."""
    if isinstance(samples, SampleFile):
        return Selection(samples, np.fromiter(rows, dtype=np.int64))
    return [samples[row] for row in rows]


def columns_of(samples: Sequence[Sample]) -> Columns:
    """Datasets and shapes of any samples."""
    if isinstance(samples, SampleFile | Selection):
        return samples.columns
    datasets: dict[str, int] = {}
    shapes: dict[Shapes, int] = {}
    dataset_of = [datasets.setdefault(sample.dataset_id, len(datasets)) for sample in samples]
    shapes_of = [shapes.setdefault(sample.shapes, len(shapes)) for sample in samples]
    return Columns(
        list(datasets), list(shapes), np.array(dataset_of, dtype=np.int64), np.array(shapes_of, dtype=np.int64)
    )


def _same(one: Sample, other: object) -> bool:
    return one == other


def _read_plan(orientation: int, across: int, down: int, *crop: int) -> Plan:
    left, top, width, height, *frames = crop
    box = (left, top, width, height)
    return FilmPlan(orientation, (across, down), box, *frames) if frames else Plan(orientation, (across, down), box)


def _read(record: list[Any], datasets: list[str]) -> Sample:
    dataset, path, content, captions, plan, references = record
    return Sample(
        datasets[dataset],
        path,
        content,
        tuple(captions),
        _read_plan(*plan),
        tuple(_read(one, datasets) for one in references),
    )
