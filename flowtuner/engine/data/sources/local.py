"""`type: local`: a folder on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flowtuner.engine.data.files import FoundFile, find_pictures
from flowtuner.engine.data.films import find_films, read_film
from flowtuner.engine.data.images import read_bytes
from flowtuner.engine.data.sample import Quarantined
from flowtuner.engine.data.sources.source import Source
from flowtuner.options import DatasetEntry, TrainingConfig


def open_source(entry: DatasetEntry, config: TrainingConfig, index_dir: Path) -> LocalSource:
    """The folder that `instance_data_dir` names."""
    return FilmFolder(entry) if entry.dataset_type == "video" else LocalSource(entry)


class LocalSource(Source):
    """All pictures below a folder."""

    def __init__(self, entry: DatasetEntry) -> None:
        self._folder = Path(entry.instance_data_dir or "").expanduser()
        super().__init__(entry.id, f"{self._folder.absolute()}/", str(self._folder))
        if not entry.instance_data_dir:
            raise self.fault("instance_data_dir is missing. Give the folder that holds the pictures.")

    def check(self) -> None:
        """Looks whether the folder is there."""
        if not self._folder.is_dir():
            what = "is not a folder" if self._folder.exists() else "does not exist"
            raise self.fault(f"instance_data_dir {self._folder} {what}.")

    def walk(self) -> Iterator[FoundFile | Quarantined]:
        """All pictures below the folder."""
        self.check()
        return find_pictures(self._folder)

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        return read_bytes(path)

    def read_text(self, path: str) -> str:
        """A text file's content."""
        return Path(path).read_text(encoding="utf-8-sig")


class FilmFolder(LocalSource):
    """All films below a folder."""

    def walk(self) -> Iterator[FoundFile | Quarantined]:
        """Animated files and folders of frames."""
        self.check()
        return find_films(self._folder)

    def read(self, path: str) -> bytes:
        """A film's bytes."""
        return read_film(path)
