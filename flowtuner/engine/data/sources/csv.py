"""`type: csv`: a table of web addresses; each picture is fetched once and kept."""

from __future__ import annotations

import csv
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.images import read_bytes
from flowtuner.engine.data.sample import Quarantined
from flowtuner.engine.data.sources.kept import KeptFiles
from flowtuner.engine.data.sources.source import Source
from flowtuner.engine.data.tables import open_csv
from flowtuner.options import DatasetEntry, TrainingConfig

URL_COLUMN, CAPTION_COLUMN = "url", "caption"
DOWNLOADS = "downloads"
LARGEST_BYTES = 256 << 20
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 30.0
LONGEST_S = 300.0
ATTEMPTS = 3
THREADS = 8
TOO_MANY, SERVER_FAULT = 429, 500


def open_source(entry: DatasetEntry, config: TrainingConfig, index_dir: Path) -> CsvSource:
    """The table that `csv_file` names; pictures are kept in `csv_cache_dir`."""
    return CsvSource(entry, index_dir)


class CsvSource(Source):
    """The rows of a table, by the addresses in it."""

    def __init__(self, entry: DatasetEntry, index_dir: Path) -> None:
        folder = Path(entry.csv_cache_dir).expanduser() if entry.csv_cache_dir else index_dir / DOWNLOADS / entry.id
        self._kept = KeptFiles(folder)
        self._file = Path(entry.csv_file or "").expanduser()
        super().__init__(entry.id, self._kept.root, str(self._file), is_remote=True)
        self._url = entry.csv_url_column or URL_COLUMN
        self._caption = entry.csv_caption_column
        self._limit = entry.max_num_samples
        if not entry.csv_file:
            raise self.fault("csv_file is missing. Give the table that holds the addresses.")

    def check(self) -> None:
        """Reads the table's first row and looks at its address."""
        row = next(self._rows(), None)
        if row is None:
            raise self.fault(f"csv_file {self._file} holds no rows.")
        if problem := _find_problem(row[0]):
            raise self.fault(f"csv_file {self._file}: the first address {problem}.")

    def walk(self) -> Iterator[FoundFile | Quarantined]:
        """Every row's picture, fetched if it is not here yet."""
        waiting: deque[tuple[str, tuple[str, ...] | None, Future[Path | str]]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
            for number, (url, captions) in enumerate(self._rows()):
                if self._limit and number >= self._limit:
                    break
                waiting.append((url, captions, pool.submit(self._fetch, url)))
                if len(waiting) > THREADS * 4:
                    yield self._settle(*waiting.popleft())
            while waiting:
                yield self._settle(*waiting.popleft())

    def read(self, path: str) -> bytes:
        """The bytes of a picture that was fetched."""
        return read_bytes(path)

    def _settle(
        self, url: str, captions: tuple[str, ...] | None, fetched: Future[Path | str]
    ) -> FoundFile | Quarantined:
        path = fetched.result()
        return Quarantined(_shown(url), path) if isinstance(path, str) else self._kept.describe(path, captions)

    def _rows(self) -> Iterator[tuple[str, tuple[str, ...] | None]]:
        wanted = [self._url, *([self._caption] if self._caption else [])]
        with open_csv(self._file, wanted, self.fault) as rows:
            try:
                for row in rows:
                    caption = row.get(self._caption or CAPTION_COLUMN)
                    yield row[self._url].strip(), None if caption is None else (caption.strip(),)
            except (csv.Error, UnicodeDecodeError) as error:
                raise self.fault(f"csv_file {self._file} cannot be read: {error}.") from error

    def _fetch(self, url: str) -> Path | str:
        if known := self._kept.find(url):
            return known
        if problem := _find_problem(url):
            return f"its address {problem}"
        for attempt in range(ATTEMPTS):
            try:
                return self._kept.keep(url, _download(url))
            except urllib.error.HTTPError as error:
                reason = f"its address answers {error.code} {error.reason}"
                if error.code != TOO_MANY and error.code < SERVER_FAULT:
                    return reason
            except _RefusedError as error:
                return str(error)
            except (OSError, HTTPException) as error:
                reason = f"its address cannot be reached: {getattr(error, 'reason', None) or error}"
            if attempt + 1 < ATTEMPTS:
                time.sleep(0.5 * 2**attempt)
        return reason


class _RefusedError(ValueError):
    """An answer that is no picture: too large, too slow, or from elsewhere."""


def _download(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "flowtuner"})
    deadline = time.monotonic() + LONGEST_S
    data = bytearray()
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if _find_problem(answer.url):
            raise _RefusedError("its address leads away from the web")
        while block := answer.read(BLOCK_BYTES):
            data += block
            if len(data) > LARGEST_BYTES:
                raise _RefusedError(f"it is larger than {LARGEST_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise _RefusedError(f"it did not arrive within {LONGEST_S:.0f} s")
    return bytes(data)


def _find_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is no web address"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"is no web address (http or https): {_shown(url)[:200]!r}"
    return None


def _shown(url: str) -> str:
    # Signatures and passwords stand in the query and before the host.
    parts = urlsplit(url)
    return parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()
