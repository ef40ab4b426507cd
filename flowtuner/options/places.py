"""Where files are looked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import flowtuner


@dataclass(frozen=True)
class Places:
    """The folders that relative paths may be meant from."""

    working_dir: Path
    config_dir: Path
    config_file: Path | None = None

    def find(self, path: str | Path, *, packaged: bool = True) -> Path | None:
        """The first existing file that a path may mean, among the packaged examples too unless told otherwise."""
        # os.path answers for what can be no path at all, such as a name that is too long, where pathlib raises.
        return next((place for place in self.candidates(path, packaged=packaged) if os.path.isfile(place)), None)

    def candidates(self, path: str | Path, *, packaged: bool = True) -> Iterator[Path]:
        """The places a path may mean, nearest first, each once."""
        return iter(
            dict.fromkeys(place.absolute() for place in self._candidates(Path(os.path.expanduser(path)), packaged))
        )

    def create(self, path: str | Path) -> Path:
        """The absolute form of a path that need not exist."""
        return self.working_dir / Path(os.path.expanduser(path))

    def _candidates(self, path: Path, packaged: bool) -> Iterator[Path]:
        if path.is_absolute():
            yield path
            return
        inside = path.relative_to("config") if path.parts[:1] == ("config",) else path
        yield self.working_dir / path
        yield self.config_dir / inside
        if self.config_file:
            yield self.config_file.parent / path
            yield self.config_file.parent.parent / inside
        if packaged:
            yield from (folder / inside for folder in packaged_folders())


def packaged_folders() -> tuple[Path, ...]:
    """The folders of examples that come with Flowtuner."""
    root = Path(flowtuner.__file__).parent / "config"
    return (root, root / "examples")
