"""Looks at every picture of the datasets once, and afterwards only at those that changed."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtuner.engine.data.buckets import find_exclusion, make_plan, turn_size
from flowtuner.engine.data.captions import CaptionReader, MissingCaptionError
from flowtuner.engine.data.faces import FaceFinder, check_faces
from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.films import probe_film
from flowtuner.engine.data.images import UnusableImageError, probe_image, quiet_decoding
from flowtuner.engine.data.memo import Memo
from flowtuner.engine.data.pairs import ReferenceSet, add_references
from flowtuner.engine.data.sample import Plan, Quarantined, Sample, Scan
from flowtuner.engine.data.samples import SampleFile
from flowtuner.engine.data.settings import (
    ALIGNED_TYPES,
    DatasetSettings,
    link_references,
    picture_entries,
    reference_entries,
    resolve_dataset,
    resolve_references,
)
from flowtuner.engine.data.sources import Source, open_source
from flowtuner.engine.data.spool import Lookup, Spool
from flowtuner.engine.data.tables import CaptionTable
from flowtuner.engine.data.threads import count_threads
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry, TrainingConfig

__all__ = ["Plan", "Quarantined", "Sample", "Scan", "scan_datasets"]

MEMO_FILE = "pictures.sqlite"
MEMO_VERSION = 3
FILMS_FILE = "films.sqlite"
FILMS_VERSION = 1
REPORT_INTERVAL_S = 1.0
NAMED_FAULTS = 5
REMOTE_READS = 16
RECALLED_AT_ONCE = 500
FACTS_WITHOUT_FACE = 4

Report = Callable[[int, int], None]
# What the memo keeps of a picture: hash, width, height, orientation, and the place of its face where somebody asked for
# it (two numbers, or `None` without one) - or the reason it is unusable. Of a film: the frames in the face's place.
Facts = list[Any] | str
Captions = tuple[str, ...] | str


def scan_datasets(entries: Sequence[DatasetEntry], config: TrainingConfig, *, index_dir: Path, report: Report) -> Scan:
    """Finds the usable pictures of all enabled image datasets; DataError if one dataset has none."""
    pictures, references = picture_entries(entries), reference_entries(entries)
    if not pictures:
        raise DataError("no dataset of pictures is enabled. Add an entry with dataset_type image to the dataloader.")
    links = link_references(entries)
    settings = [resolve_dataset(entry, config) for entry in pictures]
    settings += [resolve_references(entry, config) for entry in references]
    samples = SampleFile(index_dir)
    quarantined: list[Quarantined] = []
    # The same file may be a picture to one dataset and a film to another: each kind has its memo.
    with (
        Memo(index_dir / MEMO_FILE, MEMO_VERSION) as memo,
        Memo(index_dir / FILMS_FILE, FILMS_VERSION) as films,
        quiet_decoding(),
    ):
        sources = [open_source(entry, config, index_dir) for entry in (*pictures, *references)]
        looks = {}
        for one, source in zip(settings, sources, strict=True):
            own = films if one.film else memo
            looks[one.id] = _Look(one, source, Spool(_list_source(one, source, own)), own)
        progress = _Progress(sum(len(look.files) for look in looks.values()), report)
        facts = {entry.id: _look_at_references(looks[entry.id], progress) for entry in references}
        for entry in pictures:
            sets = [
                ReferenceSet(
                    looks[linked.id].settings,
                    looks[linked.id].source.root,
                    linked.conditioning_type in ALIGNED_TYPES,
                    facts[linked.id],
                )
                for linked in links[entry.id]
            ]
            quarantined += _scan_dataset(looks[entry.id], sets, samples, progress)
    samples.finish()
    progress.finish()
    return Scan(samples, tuple(quarantined))


class _Progress:
    def __init__(self, total: int, report: Report) -> None:
        self._total = total
        self._report = report
        self._done = 0
        self._reported_at = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = time.monotonic()
            self._report(self._done, self._total)

    def finish(self) -> None:
        self._report(self._total, self._total)


def _list_source(settings: DatasetSettings, source: Source, memo: Memo) -> Iterator[FoundFile | Quarantined]:
    if settings.reuses_listing:
        known = memo.files_below(source.root)
        first = next(known, None)
        if first is not None:
            yield first
            yield from known
            return
    yield from source.walk()


class _Look:
    """One dataset being looked at: its files in order, each with what is known of it."""

    def __init__(self, settings: DatasetSettings, source: Source, files: Spool, memo: Memo) -> None:
        self.settings = settings
        self.source = source
        self.files = files
        self._memo = memo
        self._threads = threading.local()
        self._wants_faces = settings.crop.crop and settings.crop.style == "face"
        if self._wants_faces:
            check_faces(settings.id)
        table = settings.captions.table
        loaded = CaptionTable(table, source.fault) if table else None
        self.captions = CaptionReader(settings.captions, source.root, source.read_text, loaded)
        self._reads_captions_ahead = source.is_remote and settings.captions.strategy == "textfile"

    def __iter__(self) -> Iterator[tuple[FoundFile, Facts, Captions | None]]:
        workers = REMOTE_READS if self.source.is_remote else count_threads()
        waiting: deque[_Waiting] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="probe") as pool:
            try:
                for file, known in self._recalled():
                    waiting.append(self._begin(file, known, pool))
                    # A bounded queue: pictures are held in memory while they are looked at.
                    if len(waiting) > workers * 8:
                        yield self._take(waiting)
                while waiting:
                    yield self._take(waiting)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        self._memo.keep_only(self.source.root, len(self.files), (file.path for file in self.files))

    def _recalled(self) -> Iterator[tuple[FoundFile, Facts | None]]:
        files = iter(self.files)
        while chunk := list(itertools.islice(files, RECALLED_AT_ONCE)):
            yield from zip(chunk, self._memo.recall_all(chunk), strict=True)

    def _begin(self, file: FoundFile, known: Facts | None, pool: ThreadPoolExecutor) -> _Waiting:
        if known is not None and self._wants_faces and isinstance(known, list) and len(known) == FACTS_WITHOUT_FACE:
            known = None
        return _Waiting(
            file,
            pool.submit(self._probe, file.path) if known is None else known,
            pool.submit(read_or_say, self.captions, file) if self._reads_captions_ahead else None,
        )

    def _take(self, waiting: deque[_Waiting]) -> tuple[FoundFile, Facts, Captions | None]:
        one = waiting.popleft()
        facts = one.facts
        if isinstance(facts, Future):
            facts = facts.result()
            self._memo.remember(one.file.path, one.file.stamp, facts)
        return one.file, facts, one.captions.result() if one.captions else None

    def _probe(self, path: str) -> Facts:
        try:
            data = self.source.read(path)
            if self.settings.film:
                return probe_film(data)
            facts = probe_image(data)
            known: list[Any] = [facts.content, facts.width, facts.height, facts.orientation]
            if self._wants_faces:
                known.append(self._finder.find(data, facts.orientation))
        except UnusableImageError as error:
            return str(error)
        return known

    @property
    def _finder(self) -> FaceFinder:
        if not hasattr(self._threads, "finder"):
            self._threads.finder = FaceFinder()
        finder: FaceFinder = self._threads.finder
        return finder


@dataclass(frozen=True)
class _Waiting:
    file: FoundFile
    facts: Future[Facts] | Facts
    captions: Future[Captions] | None


def read_or_say(reader: CaptionReader, file: FoundFile) -> Captions:
    """The captions of a picture, or why it has none."""
    try:
        return reader.read(file)
    except MissingCaptionError as error:
        return str(error)


def _look_at_references(look: _Look, progress: _Progress) -> Lookup:
    known = Lookup()
    known.put((fault.path, fault.reason) for fault in look.files.faults)
    known.put(_counted(look, progress))
    return known


def _counted(look: _Look, progress: _Progress) -> Iterator[tuple[str, Facts]]:
    for file, facts, _ in look:
        progress.advance()
        yield file.path, facts


def _scan_dataset(look: _Look, sets: list[ReferenceSet], samples: SampleFile, progress: _Progress) -> list[Quarantined]:
    settings = look.settings
    before = len(samples)
    quarantined: list[Quarantined] = []
    for file, facts, captions in look:
        progress.advance()
        if settings.max_samples and len(samples) - before >= settings.max_samples:
            break
        made = _make_sample(file, facts, captions, look, sets)
        if isinstance(made, Sample):
            samples.append(made)
        elif made:
            quarantined.append(made)
    faults = look.files.faults + quarantined
    if len(samples) == before:
        raise DataError(_explain_emptiness(look, faults))
    return faults


def _make_sample(
    file: FoundFile, facts: Facts, captions: Captions | None, look: _Look, sets: list[ReferenceSet]
) -> Sample | Quarantined | None:
    if isinstance(facts, str):
        return Quarantined(file.path, facts)
    content, width, height, orientation, *face = facts
    crop = look.settings.crop
    size = turn_size((width, height), orientation)
    if exclusion := find_exclusion(size, crop):
        return Quarantined(file.path, exclusion)
    if captions is None:
        captions = read_or_say(look.captions, file)
    if isinstance(captions, str):
        return Quarantined(file.path, captions)
    if not captions:
        return None
    plan = _make_plan((width, height), orientation, content, look.settings, face)
    if isinstance(plan, str):
        return Quarantined(file.path, plan)
    sample = Sample(look.settings.id, file.path, content, captions, plan)
    return add_references(sample, look.source.root, size, sets) if sets else sample


def _make_plan(
    size: tuple[int, int], orientation: int, content: str, settings: DatasetSettings, extra: list[Any]
) -> Plan | str:
    if settings.film:
        return settings.film.cut(make_plan(size, orientation, content, settings.crop), *extra)
    return make_plan(size, orientation, content, settings.crop, *extra)


def _explain_emptiness(look: _Look, faults: list[Quarantined]) -> str:
    name, found = look.settings.id, len(look.files)
    if not faults and found:
        beside = " file (.txt beside it)" if look.settings.captions.strategy == "textfile" else ""
        return f"dataset {name}: none of the {found} pictures has a caption{beside}."
    if not faults:
        return f"dataset {name}: {look.source.noun} holds no pictures."
    listed = "\n".join(f"  - {fault}" for fault in faults[:NAMED_FAULTS])
    more = f"\n  and {len(faults) - NAMED_FAULTS} more" if len(faults) > NAMED_FAULTS else ""
    return f"dataset {name}: none of the {len(faults)} pictures can be used:\n{listed}{more}"
