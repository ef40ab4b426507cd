"""The interface of what is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch


class TrainedPart(ABC):
    """The trained tensors of a model under fixed names, in a fixed order."""

    def __init__(self, named: Mapping[str, torch.nn.Parameter]) -> None:
        self._named = dict(named)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The trained parameters, always in the same order."""
        return list(self._named.values())

    def stand_in(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Takes other parameters, in the same order, for those that the model has had so far."""
        self._named = dict(zip(self._named, parameters, strict=True))

    def state(self) -> dict[str, torch.Tensor]:
        """The trained tensors by name, not copied."""
        return {name: parameter.detach() for name, parameter in self._named.items()}

    @abstractmethod
    def switched_off(self) -> AbstractContextManager[None]:
        """Makes the model answer as it did before training, for as long as the context lasts."""

    @abstractmethod
    def save(self, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes the part into a checkpoint folder; `state` is written in place of the present tensors."""

    @abstractmethod
    def save_ema(self, folder: Path) -> None:
        """Writes the part, which holds the EMA weights now, beside the trained ones."""

    @abstractmethod
    def save_release(self, output_dir: Path) -> None:
        """Writes the part as people load it for inference."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Reads the part back from a checkpoint folder, in place."""


@contextmanager
def holding(named: Mapping[str, torch.nn.Parameter], state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Puts other values into parameters, and the present ones back afterwards, bit by bit."""
    before = {name: named[name].detach().clone() for name in state}
    with torch.no_grad():
        for name, tensor in state.items():
            named[name].copy_(tensor)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                named[name].copy_(tensor)
