"""Encoded rows by content key, in packed shards: written atomically, read from memory maps."""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import torch
from safetensors.torch import save

from flowtuner import durable
from flowtuner.engine.cache.shards import PREFIX, SUFFIX, Damage, Origin, Shard, list_shards, pack_metadata, read_header
from flowtuner.engine.cache.shards import remove_stale_parts as _remove_stale_parts
from flowtuner.errors import DataError

MOST_ROWS = 256
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Rows = dict[str, torch.Tensor]
Signature = tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]
Groups = dict[Signature, list[tuple[str, Rows, Origin]]]


class Store:
    """One folder of shards; every process may read and write it at any time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: list[Damage] = []
        self._places: dict[str, tuple[Shard, int, int]] = {}
        self._maps: dict[Path, torch.UntypedStorage] = {}
        self._proven: dict[Path, list[bytearray]] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def refresh(self) -> None:
        """Takes in the shards that other processes wrote meanwhile."""
        shards, self.damaged = list_shards(self.root)
        self._places = {}
        for shard in shards:
            self._index(shard)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys that no shard holds, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self._places]

    def read(self, key: str) -> Rows:
        """The tensors of one row, straight from the mapped file; not to be written to."""
        try:
            shard, group, row = self._places[key]
        except KeyError:
            raise DataError(f"the cache in {self.root} has no row {key[:12]}…: run the caching step again.") from None
        storage = self._map(shard)
        rows: Rows = {}
        for name, place in shard.tensors[group].items():
            dtype = DTYPES[place.dtype]
            shape = place.shape[1:]
            start = place.offset // dtype.itemsize + row * math.prod(shape)
            rows[name] = torch.empty(0, dtype=dtype).set_(storage, start, shape, _strides(shape))
        if shard.sums is not None:
            self._prove(shard, group, row, rows)
        return rows

    def _prove(self, shard: Shard, group: int, row: int, rows: Rows) -> None:
        # Once per process: what was right when it came from the disk stays right in memory.
        proven = self._proven.setdefault(shard.path, [bytearray(len(keys)) for keys in shard.keys])
        if proven[group][row]:
            return
        assert shard.sums is not None
        if _sum_of(rows) != shard.sums[group][row]:
            raise DataError(
                f"the cache file {shard.path} is damaged: the bytes of a row changed on the disk. Run `flowtuner cache "
                "verify --remove` with the same options, then start again: what was removed is encoded anew."
            )
        proven[group][row] = 1

    def writer(self, rows: int = MOST_ROWS) -> Writer:
        """A context that writes rows as shards as they come; a kill loses at most the last `rows` of them."""
        return Writer(self, max(1, min(rows, MOST_ROWS)))

    def remove_damaged(self) -> list[Damage]:
        """Removes the shards that cannot be read, and says which; files of other programs and versions stay."""
        removed = [damage for damage in self.damaged if damage.is_removable]
        for damage in removed:
            logging.getLogger(__name__).warning(
                "removed the damaged cache file %s (%s); its rows are encoded again", damage.path, damage.reason
            )
            damage.path.unlink(missing_ok=True)
        self.damaged = [damage for damage in self.damaged if not damage.is_removable]
        return removed

    def take_in(self, path: Path) -> None:
        """Adds a shard that was just written to the index."""
        self._index(read_header(path))

    def _index(self, shard: Shard) -> None:
        if any(place.dtype not in DTYPES for group in shard.tensors for place in group.values()):
            self.damaged.append(Damage(shard.path, "it holds numbers of an unknown type", is_removable=False))
            return
        for group, keys in enumerate(shard.keys):
            for row, key in enumerate(keys):
                self._places[key] = (shard, group, row)

    def _map(self, shard: Shard) -> torch.UntypedStorage:
        storage = self._maps.get(shard.path)
        if storage is None:
            try:
                mapped = torch.UntypedStorage.from_file(str(shard.path), shared=False, nbytes=shard.size)
            except (OSError, RuntimeError) as error:
                raise DataError(f"the cache file {shard.path} cannot be read any more: {error}.") from error
            storage = self._maps[shard.path] = cast(torch.UntypedStorage, mapped)
        return storage


class Writer:
    """Collects rows of any shapes and writes them, stacked by shape, while the next ones are being encoded."""

    def __init__(self, store: Store, rows: int) -> None:
        self._store = store
        # One half is written while the other is collected: a kill loses at most `rows` rows.
        self._rows = max(1, rows // 2)
        self._groups: Groups = {}
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> Self:
        _remove_stale_parts(self._store.root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Also after an error: what is encoded is encoded.
        try:
            self._flush()
            self._settle()
        finally:
            self._thread.shutdown()

    def put(self, key: str, tensors: Rows, origin: Origin) -> None:
        """Adds a row; it is written with the others of its batch."""
        signature = tuple((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sorted(tensors.items()))
        self._groups.setdefault(signature, []).append((key, tensors, origin))
        self._waiting += 1

    def end_batch(self) -> None:
        """Writes if enough is waiting: what was encoded together comes into the store together, or not at all."""
        if self._waiting >= self._rows:
            self._flush()

    def _flush(self) -> None:
        self._settle()
        if self._waiting:
            self._writing = self._thread.submit(_write_shard, self._store.root, self._groups)
            self._groups, self._waiting = {}, 0

    def _settle(self) -> None:
        if self._writing:
            writing, self._writing = self._writing, None
            self._store.take_in(writing.result())


def _write_shard(root: Path, groups: Groups) -> Path:
    stacked: Rows = {}
    sums: list[list[int]] = []
    for number, (signature, rows) in enumerate(groups.items()):
        for name, _, _ in signature:
            column = torch.stack([tensors[name].detach().cpu() for _, tensors, _ in rows])
            stacked[f"{number}.{name}"] = column.contiguous()
        columns = {name: stacked[f"{number}.{name}"] for name, _, _ in signature}
        sums.append([_sum_of({name: column[row] for name, column in columns.items()}) for row in range(len(rows))])
    metadata = pack_metadata(
        [[key for key, _, _ in rows] for rows in groups.values()],
        [[origin for _, _, origin in rows] for rows in groups.values()],
        sums,
    )
    # Time first, so that names sort by age; a random part, so that processes never meet.
    path = root / f"{PREFIX}{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
    try:
        durable.write_bytes(path, save(stacked, metadata))
    except OSError as error:
        raise DataError(f"the cache in {root} cannot be written: {error.strerror or error}.") from error
    return path


def _sum_of(rows: Rows) -> int:
    total = 0
    for _, tensor in sorted(rows.items()):
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
