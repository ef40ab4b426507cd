"""The processes that train one model together: who this one is, what its share of a batch is, how all agree."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import distributed

BUCKET_BYTES = 32 << 20
PATIENCE = datetime.timedelta(minutes=30)

Value = TypeVar("Value")


class Wish(Protocol):
    """Something that may have been asked for."""

    def is_set(self) -> bool:
        """Whether it was."""


@dataclass(frozen=True)
class Share:
    """Which places of a micro batch this process works on; alone, that is all of them."""

    start: int
    stop: int
    total: int
    weight: float = 1.0
    """What its mean loss counts in the mean over all processes."""

    @classmethod
    def whole(cls, total: int) -> Share:
        """All places."""
        return cls(0, total, total)

    def of(self, drawn: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """Draws for the whole micro batch, so that chance does not depend on how many share it, and takes the share."""
        return drawn(self.total)[self.start : self.stop]

    def of_rows(self, rows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The share of tensors that were drawn for the whole micro batch."""
        return {name: tensor[self.start : self.stop] for name, tensor in rows.items()}


@dataclass(frozen=True)
class Ranks:
    """This process among all that train; the default is one that trains alone."""

    rank: int = 0
    world: int = 1
    words: Any = None
    """The process group for small things, which never waits for a device."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, draws and reports."""
        return self.rank == 0

    def share(self, total: int) -> Share:
        """This process's places of a micro batch; where they do not divide evenly, some weigh less or nothing."""
        start, stop = (total * rank // self.world for rank in (self.rank, self.rank + 1))
        if self.world == 1:
            return Share.whole(total)
        if start == stop:  # fewer samples than processes: this one repeats a sample that counts for nothing
            start = min(start, total - 1)
            return Share(start, start + 1, total, 0.0)
        return Share(start, stop, total, (stop - start) * self.world / total)

    def agree(self, value: Value) -> Value:
        """The first process's value, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self.words)
        return box[0]

    def gather(self, value: bytes) -> list[bytes]:
        """Everybody's bytes, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value, group=self.words)
        return values

    def any(self, claim: bool) -> bool:
        """Whether the claim holds in any process."""
        if self.world == 1:
            return claim
        flag = torch.tensor(int(claim))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self.words)
        return bool(flag)

    def together(self, wish: Wish) -> Wish:
        """A wish that all processes see fulfilled at the same moment, since a step needs all of them."""
        return wish if self.world == 1 else _SharedWish(self, wish)

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces tensors by their mean over all processes; many small ones travel as one."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            distributed.all_reduce(flat)
            flat /= self.world
            for tensor, mean in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(mean.view_as(tensor))


class _SharedWish:
    def __init__(self, ranks: Ranks, wish: Wish) -> None:
        self._ranks = ranks
        self._wish = wish

    def is_set(self) -> bool:
        return self._ranks.any(self._wish.is_set())


def join(rank: int, world: int) -> Ranks:
    """Meets the other processes at the address in MASTER_ADDR and MASTER_PORT."""
    if world == 1:
        return Ranks()
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    distributed.init_process_group(backend, rank=rank, world_size=world, timeout=PATIENCE)
    return Ranks(rank, world, distributed.new_group(backend="gloo", timeout=PATIENCE))


def part_ways() -> None:
    """Leaves the group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        is_full = sum(one.nbytes for one in bucket) + tensor.nbytes > BUCKET_BYTES
        if bucket and (is_full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
