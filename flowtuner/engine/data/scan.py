"""Looks at every picture of the datasets once, and afterwards only at those that changed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flowtuner.engine.data.buckets import find_exclusion, make_plan, turn_size
from flowtuner.engine.data.captions import MissingCaptionError, read_captions
from flowtuner.engine.data.files import FoundFile, find_pictures
from flowtuner.engine.data.images import UnusableImageError, probe_image, quiet_decoding, read_bytes
from flowtuner.engine.data.memo import Memo
from flowtuner.engine.data.pairs import ReferenceSet, add_references
from flowtuner.engine.data.sample import Plan, Quarantined, Sample, Scan
from flowtuner.engine.data.settings import (
    DatasetSettings,
    link_references,
    picture_entries,
    reference_entries,
    resolve_dataset,
    resolve_references,
)
from flowtuner.engine.data.threads import count_threads
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry, TrainingConfig

__all__ = ["Plan", "Quarantined", "Sample", "Scan", "scan_datasets"]

MEMO_FILE = "pictures.json"
MEMO_VERSION = "2"
REPORT_INTERVAL_S = 1.0
NAMED_FAULTS = 5

Report = Callable[[int, int], None]
# What the memo keeps of a picture: hash, width, height, orientation - or the reason it is unusable.
Facts = list[Any] | str


def scan_datasets(entries: Sequence[DatasetEntry], config: TrainingConfig, *, index_dir: Path, report: Report) -> Scan:
    """Finds the usable pictures of all enabled image datasets on local disks; DataError if one dataset has none."""
    settings = [resolve_dataset(entry, config) for entry in picture_entries(entries)]
    if not settings:
        raise DataError("no dataset of pictures is enabled. Add an entry with dataset_type image to the dataloader.")
    links = link_references(entries)
    references = {entry.id: resolve_references(entry, config) for entry in reference_entries(entries)}
    memo = Memo(index_dir / MEMO_FILE, MEMO_VERSION)
    listings = [_list_dataset(one) for one in settings]
    reference_listings = {name: _list_dataset(one) for name, one in references.items()}
    progress = _Progress(sum(len(found) for found, _ in (*listings, *reference_listings.values())), report)
    samples: list[Sample] = []
    quarantined: list[Quarantined] = []
    try:
        with quiet_decoding():
            facts = {
                name: _look_at_references(one, *reference_listings[name], memo, progress)
                for name, one in references.items()
            }
            for one, (found, faults) in zip(settings, listings, strict=True):
                sets = [
                    ReferenceSet(references[entry.id], entry.conditioning_type == "reference_strict", facts[entry.id])
                    for entry in links[one.id]
                ]
                good, bad = _scan_dataset(one, found, sets, memo, progress)
                _require_some(one, len(found), good, faults + bad)
                samples += good
                quarantined += faults + bad
    finally:
        memo.save()
    progress.finish()
    return Scan(tuple(samples), tuple(quarantined))


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


def _list_dataset(settings: DatasetSettings) -> tuple[list[FoundFile], list[Quarantined]]:
    if not settings.folder.is_dir():
        what = "is not a folder" if settings.folder.exists() else "does not exist"
        raise DataError(f"dataset {settings.id}: instance_data_dir {settings.folder} {what}.")
    return find_pictures(settings.folder)


def _look_at_references(
    settings: DatasetSettings, found: list[FoundFile], faults: list[Quarantined], memo: Memo, progress: _Progress
) -> dict[str, Facts]:
    known: dict[str, Facts] = {fault.path: fault.reason for fault in faults}
    for file, facts in _look_at(found, memo):
        progress.advance()
        known[file.path] = facts
    memo.keep_only(f"{settings.folder.absolute()}/", {file.path for file in found})
    return known


def _scan_dataset(
    settings: DatasetSettings, found: list[FoundFile], sets: list[ReferenceSet], memo: Memo, progress: _Progress
) -> tuple[list[Sample], list[Quarantined]]:
    samples: list[Sample] = []
    quarantined: list[Quarantined] = []
    for file, facts in _look_at(found, memo):
        progress.advance()
        if settings.max_samples and len(samples) >= settings.max_samples:
            continue
        made = _make_sample(file.path, facts, settings, sets)
        if isinstance(made, Sample):
            samples.append(made)
        elif made:
            quarantined.append(made)
    memo.keep_only(f"{settings.folder.absolute()}/", {file.path for file in found})
    return samples, quarantined


def _look_at(found: list[FoundFile], memo: Memo) -> Iterator[tuple[FoundFile, Facts]]:
    workers = count_threads()
    waiting: deque[tuple[FoundFile, Future[Facts] | Facts]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="probe") as pool:
        for file in found:
            known = memo.recall(file.path, file.stamp)
            waiting.append((file, pool.submit(_probe, file.path) if known is None else known))
            # A bounded queue: pictures are held in memory while they are looked at.
            if len(waiting) > workers * 8:
                yield _take(waiting, memo)
        while waiting:
            yield _take(waiting, memo)


def _take(waiting: deque[tuple[FoundFile, Future[Facts] | Facts]], memo: Memo) -> tuple[FoundFile, Facts]:
    file, look = waiting.popleft()
    if not isinstance(look, Future):
        return file, look
    facts = look.result()
    memo.remember(file.path, file.stamp, facts)
    return file, facts


def _probe(path: str) -> Facts:
    try:
        facts = probe_image(read_bytes(path))
    except UnusableImageError as error:
        return str(error)
    return [facts.content, facts.width, facts.height, facts.orientation]


def _make_sample(
    path: str, facts: Facts, settings: DatasetSettings, sets: list[ReferenceSet]
) -> Sample | Quarantined | None:
    if isinstance(facts, str):
        return Quarantined(path, facts)
    content, width, height, orientation = facts
    if exclusion := find_exclusion(turn_size((width, height), orientation), settings.crop):
        return Quarantined(path, exclusion)
    try:
        captions = read_captions(path, settings.captions)
    except MissingCaptionError as error:
        return Quarantined(path, str(error))
    plan = make_plan((width, height), orientation, content, settings.crop)
    if not captions:
        return None
    sample = Sample(settings.id, path, content, captions, plan)
    return add_references(sample, settings.folder, turn_size((width, height), orientation), sets) if sets else sample


def _require_some(settings: DatasetSettings, found: int, samples: list[Sample], faults: list[Quarantined]) -> None:
    if samples:
        return
    if not faults and found:
        raise DataError(f"dataset {settings.id}: none of the {found} pictures has a caption file (.txt beside it).")
    if not faults:
        raise DataError(f"dataset {settings.id}: {settings.folder} holds no pictures.")
    listed = "\n".join(f"  - {fault}" for fault in faults[:NAMED_FAULTS])
    more = f"\n  and {len(faults) - NAMED_FAULTS} more" if len(faults) > NAMED_FAULTS else ""
    raise DataError(f"dataset {settings.id}: none of the {len(faults)} pictures can be used:\n{listed}{more}")
