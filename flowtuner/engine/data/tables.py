"""Captions in tables: parquet, CSV or JSON lines, looked up by the pictures' names."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtuner.engine.data.spool import Lookup
from flowtuner.errors import DataError

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")
BATCH_ROWS = 2000

Fault = Callable[[str], DataError]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TableSettings:
    """Which table holds the captions of a dataset, and in which columns."""

    path: Path
    filename_column: str = "filename"
    caption_columns: tuple[str, ...] = ("caption",)
    fallback_column: str | None = None
    has_suffix: bool = True
    """Whether the names in the table have their suffix."""


class CaptionTable:
    """The captions of one table by file name, kept on disk."""

    def __init__(self, settings: TableSettings, fault: Fault) -> None:
        self._settings = settings
        self._captions = Lookup()
        self._captions.put(self._read(fault))

    def find(self, relative: str) -> tuple[str, ...] | None:
        """The captions of a picture by its path below the dataset's folder, or by its name alone."""
        for name in dict.fromkeys((relative, os.path.basename(relative))):
            known = self._captions.get(name if self._settings.has_suffix else os.path.splitext(name)[0])
            if known is not None:
                return tuple(known)
        return None

    def _read(self, fault: Fault) -> Iterator[tuple[str, list[str]]]:
        settings = self._settings
        for row in read_rows(settings.path, columns_needed(settings), fault):
            captions = [text for column in settings.caption_columns for text in texts_of(row.get(column))]
            if not captions and settings.fallback_column:
                captions = texts_of(row.get(settings.fallback_column))
            name = row.get(settings.filename_column)
            if captions and name is not None:
                yield str(name), captions


def columns_needed(settings: TableSettings) -> list[str]:
    """The columns that a table must have."""
    fallback = [settings.fallback_column] if settings.fallback_column else []
    return [settings.filename_column, *settings.caption_columns, *fallback]


def check_table(settings: TableSettings, fault: Fault) -> None:
    """Reads a table's first row, to find out whether it can be read and has its columns."""
    for _ in read_rows(settings.path, columns_needed(settings), fault):
        return
    raise fault(f"the table {settings.path} holds no rows.")


def read_rows(path: Path, columns: Sequence[str], fault: Fault) -> Iterator[Row]:
    """The rows of a table, one after the other, with these columns at least."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise fault(f"the table {path} does not exist.")
    if suffix == ".parquet":
        return _read_parquet(path, columns, fault)
    if suffix in (".csv", ".tsv"):
        return _read_csv(path, columns, fault)
    if suffix == ".jsonl":
        return _read_json_lines(path, columns, fault)
    raise fault(f"the table {path} is of no known kind. Allowed: {', '.join(SUFFIXES)}.")


def texts_of(value: Any) -> list[str]:
    """A cell's captions: a text, a list of texts, or none."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [text for item in listed if item is not None and (text := str(item).strip())]


@contextlib.contextmanager
def open_csv(path: Path, columns: Sequence[str], fault: Fault) -> Iterator[Iterator[Row]]:
    """The rows of a CSV file, streamed."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise fault(f"the table {path} cannot be read: {error.strerror}.") from error
    with file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            present = list(reader.fieldnames or ())
        except (csv.Error, UnicodeDecodeError) as error:
            raise fault(f"the table {path} cannot be read: {error}.") from error
        _require(path, columns, present, fault)
        yield iter(reader)


def _read_csv(path: Path, columns: Sequence[str], fault: Fault) -> Iterator[Row]:
    with open_csv(path, columns, fault) as rows:
        try:
            yield from rows
        except (csv.Error, UnicodeDecodeError) as error:
            raise fault(f"the table {path} cannot be read: {error}.") from error


def _read_json_lines(path: Path, columns: Sequence[str], fault: Fault) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        is_first = True
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise fault(f"the table {path}, line {number}, is no JSON: {error}.") from error
            if not isinstance(row, dict):
                raise fault(f"the table {path}, line {number}, is no object.")
            if is_first:
                _require(path, columns, list(row), fault)
                is_first = False
            yield row


def _read_parquet(path: Path, columns: Sequence[str], fault: Fault) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise fault("parquet needs the package pyarrow: pip install 'flowtuner[data]'.") from error
    try:
        with parquet.ParquetFile(path) as file:
            _require(path, columns, file.schema_arrow.names, fault)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns))):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise fault(f"the table {path} cannot be read: {error}.") from error


def _require(path: Path, columns: Sequence[str], present: Sequence[str], fault: Fault) -> None:
    missing = [column for column in dict.fromkeys(columns) if column not in present]
    if missing:
        raise fault(f"the table {path} has no column {', '.join(missing)}. It has: {', '.join(present)}.")
