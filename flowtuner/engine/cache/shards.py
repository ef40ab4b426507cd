"""The cache's files on disk: stacked safetensors whose headers are the only index (read without torch)."""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

FORMAT = "flowtuner-cache-1"
PREFIX = "rows-"
SUFFIX = ".safetensors"
LARGEST_HEADER = 100_000_000
STALE_PART_S = 24 * 3600
ITEM_BYTES = MappingProxyType(
    {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
)

Origin = dict[str, str]


@dataclass(frozen=True)
class TensorPlace:
    """Where a stacked tensor stands in a shard file; the offset counts from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """One readable shard: per group of like-shaped rows, their keys and their stacked tensors."""

    path: Path
    size: int
    keys: tuple[tuple[str, ...], ...]
    tensors: tuple[dict[str, TensorPlace], ...]
    sums: tuple[tuple[int, ...], ...] | None = None
    """CRC-32 of each row's bytes, per group; files of earlier versions have none."""

    def origins(self) -> list[list[Origin]]:
        """Where each row came from, per group; read again only when somebody asks."""
        with self.path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        listed = json.loads(header["__metadata__"]["origins"])
        return [[{str(k): str(v) for k, v in row.items()} for row in group] for group in listed]


@dataclass(frozen=True)
class Damage:
    """A file among the shards that is of no use, and whether it is one of ours that may go."""

    path: Path
    reason: str
    is_removable: bool


class DamagedShardError(ValueError):
    """A file among the shards cannot be read as one; the text says why."""


class ForeignShardError(DamagedShardError):
    """A file among the shards is whole, but of another program or version."""


def list_shards(root: Path) -> tuple[list[Shard], list[Damage]]:
    """The shards of a store, oldest first, and the files that are of no use."""
    shards: list[Shard] = []
    damaged: list[Damage] = []
    for path in _shard_files(root):
        try:
            shards.append(read_header(path))
        except FileNotFoundError:
            continue
        except (ForeignShardError, OSError) as error:
            damaged.append(Damage(path, str(error), is_removable=False))
        except DamagedShardError as error:
            damaged.append(Damage(path, str(error), is_removable=path.name.startswith(PREFIX)))
    return shards, damaged


def read_header(path: Path) -> Shard:
    """Reads one shard's header and checks that the file is as long as it says."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise DamagedShardError("it is truncated, or no safetensors file")
        try:
            header = json.loads(file.read(length))
            return _parse(path, size, length + 8, header)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, DamagedShardError):
                raise
            raise DamagedShardError("it was not written by this cache") from error


def find_flipped(shard: Shard) -> list[str]:
    """The keys of the rows whose bytes are not those that were written."""
    flipped: list[str] = []
    with shard.path.open("rb") as file:
        for group, tensors in enumerate(shard.tensors):
            for row, key in enumerate(shard.keys[group]):
                total = 0
                for _, place in sorted(tensors.items()):
                    size = place.row_bytes
                    file.seek(place.offset + row * size)
                    total = zlib.crc32(file.read(size), total)
                if shard.sums is not None and total != shard.sums[group][row]:
                    flipped.append(key)
    return flipped


def pack_metadata(keys: list[list[str]], origins: list[list[Origin]], sums: list[list[int]]) -> dict[str, str]:
    """The text part of a shard's header."""
    compact = (",", ":")
    return {
        "format": FORMAT,
        "keys": json.dumps(keys, separators=compact),
        "origins": json.dumps(origins, separators=compact),
        "sums": json.dumps(sums, separators=compact),
    }


def remove_stale_parts(root: Path) -> None:
    """Removes what writers that were killed long ago left behind."""
    for part in root.glob(f".*{SUFFIX}.*.part"):
        try:
            if time.time() - part.stat().st_mtime > STALE_PART_S:
                part.unlink()
        except OSError:
            continue


def _shard_files(root: Path) -> Iterator[Path]:
    try:
        with os.scandir(root) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(SUFFIX) and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        yield root / name


def _parse(path: Path, size: int, data_start: int, header: dict[str, Any]) -> Shard:
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise ForeignShardError(f"it has another format than {FORMAT}")
    keys = tuple(tuple(group) for group in json.loads(metadata["keys"]))
    groups: tuple[dict[str, TensorPlace], ...] = tuple({} for _ in keys)
    end = 0
    for name, value in header.items():
        number, _, tensor = name.partition(".")
        begin, finish = value["data_offsets"]
        end = max(end, finish)
        shape = tuple(value["shape"])
        if shape[0] != len(keys[int(number)]):
            raise DamagedShardError("its keys and rows do not match")
        groups[int(number)][tensor] = TensorPlace(value["dtype"], shape, data_start + begin)
    if data_start + end != size:
        raise DamagedShardError(f"it is truncated: {size} bytes instead of {data_start + end}")
    sums = tuple(tuple(group) for group in json.loads(metadata["sums"])) if "sums" in metadata else None
    if sums is not None and [len(group) for group in sums] != [len(group) for group in keys]:
        raise DamagedShardError("its keys and checksums do not match")
    return Shard(path, size, keys, groups, sums)
