"""Rules about where a dataset entry's files are: what each type needs, and what is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowtuner.options.dataset import MEDIA_TYPES, DatasetEntry

# Which key says where the files are, and what it has to name.
NEEDED = {
    "aws": ("aws_bucket_name", "the bucket that holds the pictures"),
    "csv": ("csv_file", "a table of web addresses"),
    "huggingface": ("dataset_name", "a name on the Hub or a local folder"),
}


def check_place(entry: DatasetEntry) -> Iterator[tuple[Any, ...]]:
    """What is missing, or stands in the wrong kind of entry."""
    if not entry.id.strip():
        yield "id", "is empty", "a unique name"
    if entry.dataset_type not in MEDIA_TYPES:
        if entry.type in NEEDED:
            yield "type", f"is {entry.type}, but caches are kept on a local disk", "local"
        return
    if entry.type == "local":
        yield from _check_folder(entry)
    elif entry.type in NEEDED:
        yield from _check_needed(entry)
        if entry.dataset_type == "conditioning" and entry.type != "aws":
            yield "type", f"is {entry.type}, whose pictures have no names to be paired by", "local, aws"
    if bool(entry.aws_access_key_id) != bool(entry.aws_secret_access_key):
        absent = "aws_secret_access_key" if entry.aws_access_key_id else "aws_access_key_id"
        yield absent, "is missing beside its other half", "both or neither"


def _check_needed(entry: DatasetEntry) -> Iterator[tuple[Any, ...]]:
    key, what = NEEDED[entry.type]
    nested = entry.huggingface.dataset_name if entry.huggingface and key == "dataset_name" else None
    value = getattr(entry, key) or nested
    if not value:
        yield key, f"is required with type={entry.type}", what
    elif isinstance(value, Path) and not os.path.isfile(value):
        yield key, "does not exist", "an existing file"


def _check_folder(entry: DatasetEntry) -> Iterator[tuple[Any, ...]]:
    folder = entry.instance_data_dir
    if folder is None:
        if not entry.conditioning and not entry.source_dataset_id:
            yield "instance_data_dir", "is required", "the folder that holds the files"
    elif not os.path.exists(folder):
        yield "instance_data_dir", "does not exist", "an existing folder", _nearest(folder)
    elif not os.path.isdir(folder):
        yield "instance_data_dir", "is a file", "a folder"


def _nearest(folder: Path) -> str:
    ground = next((parent for parent in folder.parents if os.path.exists(parent)), None)
    return f"{ground} does exist." if ground else ""
