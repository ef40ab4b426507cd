"""The interface of a source: what it holds, and the bytes of one file of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.sample import Quarantined
from flowtuner.errors import DataError


class Source(ABC):
    """Where the pictures of one dataset come from; may be asked by several threads at once."""

    def __init__(self, dataset: str, root: str, noun: str, *, is_remote: bool = False) -> None:
        self.dataset = dataset
        self.root = root
        """What every path starts with."""
        self.noun = noun
        """How messages call the place."""
        self.is_remote = is_remote
        """Whether it is looked at through the network, where several requests are made at once."""

    @abstractmethod
    def check(self) -> None:
        """Looks, within seconds, whether the place is there and may be read; DataError if not."""

    @abstractmethod
    def walk(self) -> Iterator[FoundFile | Quarantined]:
        """Everything it holds, in any order."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The bytes of a picture; UnusableImageError if they cannot be had."""

    def read_text(self, path: str) -> str:
        """The text of the file beside a picture, FileNotFoundError if there is none."""
        raise DataError(f"dataset {self.dataset}: caption_strategy textfile needs files beside the pictures.")

    def fault(self, text: str) -> DataError:
        """An error about this dataset."""
        return DataError(f"dataset {self.dataset}: {text}")
