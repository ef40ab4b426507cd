"""Counts the memory that operations take and give back, also where no operation is carried out."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside it every new piece of memory is counted, from the operation that makes it until nobody holds it."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._total = 0
        # What was there before costs nothing, however often it is looked at another way.
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        for each in tree_leaves(answer):
            if isinstance(each, torch.Tensor):
                self._note(each.untyped_storage())
        return answer

    def _note(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place in self._sizes:
            return
        size = self._sizes[place] = storage.nbytes()
        self._total += size
        self.peak = max(self.peak, self._total)
        weakref.finalize(storage, self._forget, place)

    def _forget(self, place: int) -> None:
        self._total -= self._sizes.pop(place, 0)
