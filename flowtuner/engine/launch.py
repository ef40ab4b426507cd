"""The handle on the engine: starts the worker process, gives it orders, ends it; imports no torch."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowtuner import errors
from flowtuner.engine.child import Child
from flowtuner.engine.events import CHECKPOINT, STAGE, EventLog
from flowtuner.engine.processes import count_processes
from flowtuner.engine.run import CacheReport, Checkpoint, Portion, Position, RunSpec, TrainReport, ValidationReport

CLOSE_GRACE_S = 25.0
SAVING = ("checkpoint_save", "model_save")

# A log is no terminal: bars drawn over each other only hide what it says.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class Engine:
    """One run's engine; a context manager that saves and ends the process when it is left."""

    def __init__(self, spec: RunSpec, events: EventLog, close_grace_s: float = CLOSE_GRACE_S) -> None:
        self.spec = spec
        self.events = events
        self.close_grace_s = close_grace_s
        self.newest_checkpoint: Checkpoint | None = None
        self._worker: Child | None = None
        self._is_prepared = False
        self._is_saving = False
        self._promised: Checkpoint | None = None
        self._held: Sequence[str] = ()
        self._announced: queue.SimpleQueue[Checkpoint] = queue.SimpleQueue()
        self._on_checkpoint: Callable[[Checkpoint], None] = lambda checkpoint: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The worker's process id while it lives."""
        return self._worker.pid if self._worker and self._worker.is_alive else None

    def start(self) -> None:
        """Starts the worker ahead of the first order, so that its imports overlap with other work."""
        if self._worker and self._worker.is_alive:
            return
        if self._worker:
            self._worker.end()  # what is left of a dead one: its pipes, and children that outlived it
        spec_path = self.spec.output_dir / "logs" / "run.json"
        try:
            self.spec.save(spec_path)
        except OSError as error:
            raise errors.EngineFault(f"{spec_path} cannot be written: {error.strerror or error}") from error
        config = self.spec.loaded.config
        threads = config.torch_num_threads or max(1, len(os.sched_getaffinity(0)) // count_processes(config))
        environment = {"OMP_NUM_THREADS": str(threads)} | QUIET | dict(os.environ) | self.spec.environment()
        self._worker = Child(spec_path, self.spec.engine_log, environment, self._receive)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Says where training goes on; before `prepare`."""
        self.newest_checkpoint = checkpoint

    def look_at_data(self) -> None:
        """Looks at every picture, and remembers what it saw for all who share the cache folder."""
        self._call("look_at_data")

    def cache_text(self, portion: Portion | None = None) -> CacheReport:
        """Encodes the captions and prompts that are not in the cache yet, or a portion of them."""
        return _cache_report(self._call("cache_text", **_portioned(portion)))

    def cache_latents(self, portion: Portion | None = None) -> CacheReport:
        """Encodes the pictures that are not in the cache yet, or a portion of them."""
        return _cache_report(self._call("cache_latents", **_portioned(portion)))

    def prepare(self) -> Position:
        """Loads the model and goes to where training continues."""
        # After a crash the run goes on from its own newest checkpoint, whatever it was first told to resume from.
        resume = str(self.newest_checkpoint.path) if self.newest_checkpoint else None
        position = Position(**self._call("prepare", resume=resume))
        self._is_prepared = True
        return position

    def train(self, until: int, *, pausable: bool = False) -> TrainReport:
        """Trains up to a step, or to a pause that is asked for; after a crash of the worker this first resumes."""
        self._revive()
        return TrainReport(**self._call("train", until=until, pausable=pausable))

    def pause(self) -> None:
        """Has the training under way, or the next, return after its step; nothing is saved or lost."""
        if self._worker:
            self._worker.send({"id": 0, "name": "pause", "arguments": {}})

    def when_checkpoint(self, call: Callable[[Checkpoint], None]) -> None:
        """Has every checkpoint told when it is whole, in the thread that gives orders, while it waits for an answer."""
        self._on_checkpoint = call

    def save_checkpoint(self, held: Sequence[str] = (), *, waits: bool = True) -> Checkpoint:
        """Saves a complete checkpoint of the present step; the older ones that are held are not rotated away.

        Without waiting, training can go on before it is whole: a promise, kept even if the worker dies meanwhile.
        """
        self._revive()
        saved = _checkpoint(self._call("save_checkpoint", held=list(held), waits=waits))
        self._promised, self._held = saved, held
        return saved

    @property
    def promised(self) -> Checkpoint | None:
        """The checkpoint that is written but not known to be whole yet."""
        newest = self.newest_checkpoint
        is_open = self._promised and (newest is None or newest.step < self._promised.step)
        return self._promised if is_open else None

    def settle(self) -> None:
        """Waits until the checkpoint that was promised is whole."""
        self._revive()
        self._call("settle")

    def validate(self) -> ValidationReport:
        """Renders the validation prompts; what goes wrong stands in the report."""
        self._revive()
        reply = self._call("validate")
        for kind in ("images", "videos"):
            reply[kind] = tuple(Path(drawing) for drawing in reply[kind])
        reply["sheet"] = Path(reply["sheet"]) if reply["sheet"] else None
        reply["prompts"] = tuple(reply["prompts"])
        return ValidationReport(**reply)

    def save_release(self) -> Checkpoint:
        """Writes the final weights in the layout that inference loads."""
        self._revive()
        return _checkpoint(self._call("save_release"))

    def stop(self) -> None:
        """Asks the worker to stop at the next step; the order under way returns early."""
        if self._worker:
            self._worker.send({"id": 0, "name": "stop", "arguments": {}})

    def kill(self) -> None:
        """Ends the worker and its children at once; what they have not saved is lost. Safe in a signal handler."""
        if self._worker:
            self._worker.kill()

    def close(self) -> Checkpoint | None:
        """Saves steps that no checkpoint holds, ends the worker and all its children; may be called twice."""
        if not self._worker:
            return self.newest_checkpoint
        self._worker.end(self.close_grace_s, lambda: self._is_saving)
        self._worker = None
        return self.newest_checkpoint

    def hand_over(self) -> None:
        """Tells of the checkpoints that became whole meanwhile."""
        while not self._announced.empty():
            self._on_checkpoint(self._announced.get())

    def _revive(self) -> None:
        if self._is_prepared and not (self._worker and self._worker.is_alive):
            self._is_prepared = False
            position = self.prepare()
            if (promised := self.promised) and promised.step > position.step:
                self._call("train", until=promised.step)
                self._call("save_checkpoint", held=list(self._held), waits=False)

    def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.start()
        assert self._worker is not None
        return self._worker.call(name, arguments, self.hand_over)

    def _receive(self, type: str, data: dict[str, Any]) -> None:
        if type == CHECKPOINT and not data.get("is_final"):
            self.newest_checkpoint = Checkpoint(Path(data["path"]), data["step"])
            self._announced.put(self.newest_checkpoint)
            if self._worker:
                self._worker.wake()
        if type == STAGE and data["key"] in SAVING:
            self._is_saving = data["status"] == "running"
        self.events.append(type, data)


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Waits until a process is gone; for those who must know that the device is free again."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def _portioned(portion: Portion | None) -> dict[str, Any]:
    return {"portion": [portion.number, portion.count]} if portion else {}


def _cache_report(reply: dict[str, Any]) -> CacheReport:
    reply["quarantined"] = tuple((path, reason) for path, reason in reply["quarantined"])
    return CacheReport(**reply)


def _checkpoint(reply: dict[str, Any]) -> Checkpoint:
    return Checkpoint(Path(reply["path"]), reply["step"], reply["is_final"])
