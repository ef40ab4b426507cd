"""What makes a written checkpoint a whole one, in the background: training waits for the writing alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flowtuner.background import in_background
from flowtuner.engine import checkpoints
from flowtuner.engine.assembly import writing
from flowtuner.errors import CheckpointError

Tell = Callable[[str], None]


def _nothing_to_do() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


@dataclass
class Sealer:
    """Hashes, flushes and renames one checkpoint at a time, then lets the oldest ones go."""

    output_dir: Path
    keep: int
    warn: Tell
    fail: Tell
    _held: tuple[str, ...] = ()
    _work: Future[None] = field(default_factory=_nothing_to_do)

    def begin(
        self, folder: Path, seal: Callable[[], None], held: Sequence[str] | None, announce: Callable[[], object]
    ) -> None:
        """Starts on a checkpoint; it is announced when it can be trusted. The held ones stay where there is room."""
        self._held = tuple(held if held is not None else self._held)
        self._work = in_background(partial(self._finish, folder, seal, announce), f"seal {folder.name}")

    def settle(self) -> None:
        """Waits for the checkpoint under way; raises what it failed with, once."""
        work, self._work = self._work, _nothing_to_do()
        work.result()

    def check(self) -> None:
        """Raises what a checkpoint has failed with; waits for nothing."""
        if self._work.done():
            self.settle()

    def _finish(self, folder: Path, seal: Callable[[], None], announce: Callable[[], object]) -> None:
        try:
            with writing(folder):
                seal()
                self._rotate(folder)
        except CheckpointError as error:
            self.fail(str(error))
            raise
        announce()

    def _rotate(self, newest: Path) -> None:
        spared = self._held if checkpoints.has_room_for_more(newest) else ()
        for folder in checkpoints.rotate(self.output_dir, self.keep, newest, spared):
            if folder.name in self._held:
                self.warn(f"{folder.name} is removed unpublished: the disk is nearly full, and newer ones are here.")
