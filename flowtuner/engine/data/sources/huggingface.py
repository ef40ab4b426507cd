"""`type: huggingface`: the rows of a data set of the `datasets` library, from the Hub or a local folder."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.images import UnusableImageError, read_bytes
from flowtuner.engine.data.sample import Quarantined
from flowtuner.engine.data.sources.kept import KeptFiles
from flowtuner.engine.data.sources.source import Source
from flowtuner.engine.data.tables import texts_of
from flowtuner.options import DatasetEntry, TrainingConfig
from flowtuner.options.dataset import HubSettings

IMAGE_COLUMN, CAPTION_COLUMN = "image", "caption"
ROWS = "rows"
BATCH_ROWS = 1000


def open_source(entry: DatasetEntry, config: TrainingConfig, index_dir: Path) -> HuggingfaceSource:
    """The data set that `dataset_name` names; rows that are streamed are kept below the index."""
    return HuggingfaceSource(entry, index_dir / ROWS / entry.id)


class HuggingfaceSource(Source):
    """One split; a row is a picture with its captions."""

    def __init__(self, entry: DatasetEntry, folder: Path) -> None:
        nested = entry.huggingface or HubSettings()
        self._name = entry.dataset_name or nested.dataset_name or ""
        self._split = entry.split or nested.split or "train"
        self._revision = entry.revision or nested.revision
        self._image = entry.image_column or nested.image_column or IMAGE_COLUMN
        captions = entry.caption_column or nested.caption_column or CAPTION_COLUMN
        self._captions = [captions] if isinstance(captions, str) else list(captions)
        self._needs_captions = entry.caption_strategy == "huggingface"
        self._streaming = entry.streaming or nested.streaming
        self._limit = entry.max_num_samples
        self._kept = KeptFiles(folder)
        root = self._kept.root if self._streaming else f"hf://{self._name}/{self._split}/"
        super().__init__(entry.id, root, f"{self._name} ({self._split})", is_remote=self._streaming)
        if not self._name:
            raise self.fault("dataset_name is missing. Give a name on the Hub or a local folder.")

    def check(self) -> None:
        """Opens the data set and looks at its columns."""
        _ = self._rows

    def walk(self) -> Iterator[FoundFile | Quarantined]:
        """Every row; those that are streamed are kept as they come."""
        return self._walk_streamed() if self._streaming else self._walk_mapped()

    def read(self, path: str) -> bytes:
        """The picture of a row."""
        if self._streaming:
            return read_bytes(path)
        data = self._bytes_of(self._rows[int(path.removeprefix(self.root))])
        if data is None:
            raise UnusableImageError(f"the row has no picture in its column {self._image}")
        return data

    def _walk_mapped(self) -> Iterator[FoundFile | Quarantined]:
        rows = self._rows
        # The library names each state of a data set by a hash of all that led to it.
        mark = int.from_bytes(hashlib.sha256(str(rows._fingerprint).encode()).digest()[:8], "big")
        present = [column for column in self._captions if column in rows.column_names]
        texts = rows.select_columns(present) if present else None
        for start in range(0, len(rows), BATCH_ROWS):
            batch = texts[start : start + BATCH_ROWS] if texts is not None else {}
            for place in range(min(BATCH_ROWS, len(rows) - start)):
                captions = self._texts({column: values[place] for column, values in batch.items()})
                yield FoundFile(f"{self.root}{start + place:010d}", (start + place, 0, 0, mark), captions)

    def _walk_streamed(self) -> Iterator[FoundFile | Quarantined]:
        for number, row in enumerate(itertools.islice(self._rows, self._limit)):
            name = f"{self._name}/{self._split}/{number:010d}"
            data = self._bytes_of(row)
            if data is None:
                yield Quarantined(f"hf://{name}", f"the row has no picture in its column {self._image}")
                continue
            kept = self._kept.find(name)
            if kept is None or kept.read_bytes() != data:
                kept = self._kept.keep(name, data)
            yield self._kept.describe(kept, self._texts(row))

    def _texts(self, row: dict[str, Any]) -> tuple[str, ...] | None:
        found = [text for column in self._captions for text in texts_of(row.get(column))]
        return tuple(found) or None

    def _bytes_of(self, row: dict[str, Any]) -> bytes | None:
        cell = row.get(self._image)
        if isinstance(cell, bytes):
            return cell
        if not isinstance(cell, dict):
            return None
        data = cell.get("bytes")
        if isinstance(data, bytes):
            return data
        return read_bytes(str(cell["path"])) if cell.get("path") else None

    @cached_property
    def _rows(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise self.fault("type huggingface needs the package datasets: pip install 'flowtuner[data]'.") from error
        from pyarrow import ArrowException

        datasets.disable_progress_bars()
        try:
            rows = self._load(datasets)
        except (
            OSError,
            ValueError,
            RuntimeError,
            LookupError,
            ArrowException,
            datasets.exceptions.DatasetsError,
        ) as error:
            reason = str(error).strip().split("\n")[0]
            raise self.fault(f"{self._name} (split {self._split}) cannot be opened: {reason}") from error
        self._require_columns(list(rows.column_names or ()))
        if isinstance((rows.features or {}).get(self._image), datasets.Image):
            rows = rows.cast_column(self._image, datasets.Image(decode=False))
        return rows

    def _load(self, datasets: Any) -> Any:
        folder = Path(self._name).expanduser()
        if next(folder.glob("*.py"), None) is not None:
            raise ValueError(
                "it is a builder script, which the library does not run any more; save its rows as parquet"
            )
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder / self._split))
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        name = str(folder) if folder.is_dir() else self._name
        return datasets.load_dataset(name, split=self._split, revision=self._revision, streaming=self._streaming)

    def _require_columns(self, present: list[str]) -> None:
        wanted = [self._image, *(self._captions if self._needs_captions else [])]
        missing = [column for column in wanted if column not in present]
        if missing and present:
            raise self.fault(
                f"{self._name} has no column {', '.join(missing)}. It has: {', '.join(present)}. Say which with "
                "image_column and caption_column."
            )
