"""The handle on the engine: starts the worker process, gives it orders, ends it; imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from flowtuner import errors
from flowtuner.engine.events import CHECKPOINT, STAGE, EventLog
from flowtuner.engine.processes import count_processes
from flowtuner.engine.run import CacheReport, Checkpoint, Portion, Position, RunSpec, TrainReport, ValidationReport

WORKER = "flowtuner.engine.worker"
CLOSE_GRACE_S = 25.0
SAVE_GRACE_S = 600.0
SAVING = ("checkpoint_save", "model_save")
POLL_S = 0.5
LOG_TAIL_LINES = 12

# A log is no terminal: bars drawn over each other only hide what it says.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

Receive = Callable[[str, dict[str, Any]], None]

_RAISED_BY_NAME = {
    kind.__name__: kind
    for kind in (
        errors.DataError,
        errors.ModelError,
        errors.CheckpointError,
        errors.EngineFault,
        errors.EngineDied,
        errors.SourceDown,
    )
}


class Engine:
    """One run's engine; a context manager that saves and ends the process when it is left."""

    def __init__(self, spec: RunSpec, events: EventLog, close_grace_s: float = CLOSE_GRACE_S) -> None:
        self.spec = spec
        self.events = events
        self.close_grace_s = close_grace_s
        self.newest_checkpoint: Checkpoint | None = None
        self._worker: _Worker | None = None
        self._is_prepared = False
        self._is_saving = False

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
        self._worker = _Worker(spec_path, self.spec.engine_log, environment, self._receive)

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

    def save_checkpoint(self, held: Sequence[str] = ()) -> Checkpoint:
        """Saves a complete checkpoint of the present step; the older ones that are held are not rotated away."""
        self._revive()
        self.newest_checkpoint = _checkpoint(self._call("save_checkpoint", held=list(held)))
        return self.newest_checkpoint

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

    def _revive(self) -> None:
        if self._is_prepared and not (self._worker and self._worker.is_alive):
            self._is_prepared = False
            self.prepare()

    def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.start()
        assert self._worker is not None
        return self._worker.call(name, arguments)

    def _receive(self, type: str, data: dict[str, Any]) -> None:
        if type == CHECKPOINT and not data.get("is_final"):
            self.newest_checkpoint = Checkpoint(Path(data["path"]), data["step"])
        if type == STAGE and data["key"] in SAVING:
            self._is_saving = data["status"] == "running"
        self.events.append(type, data)


class _Worker:
    """One life of the worker process: its pipes, its reader thread, its end."""

    def __init__(self, spec_path: Path, log_path: Path, environment: Mapping[str, str], receive: Receive) -> None:
        self._spec_path = spec_path
        self._log_path = log_path
        self._environment = environment
        self._receive = receive
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._next_id = 0
        # The parent-death signal fires when the *thread* that started the child ends, so that thread lives as long.
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure:
            raise errors.EngineFault(f"the engine process could not be started: {self._failure}") from self._failure

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._next_id += 1
        self.send({"id": self._next_id, "name": name, "arguments": arguments})
        while True:
            reply = self._next_reply()
            if reply is None:
                raise errors.EngineDied(self._obituary(name))
            if reply["id"] != self._next_id:
                continue  # the answer to an order that an interrupt made us abandon
            if reply["error"]:
                raise _RAISED_BY_NAME.get(reply["error"]["kind"], errors.EngineFault)(reply["error"]["message"])
            result: dict[str, Any] = reply["result"]
            return result

    def send(self, command: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # a dead worker is noticed by its missing answer
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def end(self, grace_s: float = 0.0, is_saving: Callable[[], bool] = lambda: False) -> None:
        process = self._process
        assert process is not None
        self.send({"id": 0, "name": "stop", "arguments": {}})
        self._hang_up()
        started = time.monotonic()
        # A checkpoint that is half written would be lost, and with it all steps since the one before.
        while self.is_alive and time.monotonic() - started < (SAVE_GRACE_S if is_saving() else grace_s):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
        self._kill_group()
        self._thread.join(timeout=5)

    def kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _kill_group(self) -> None:
        assert self._process is not None
        self.kill()
        self._process.wait()

    def _next_reply(self) -> dict[str, Any] | None:
        # A timed wait lets signals reach the main thread.
        while True:
            with contextlib.suppress(queue.Empty):
                return self._replies.get(timeout=POLL_S)

    def _live(self) -> None:
        read_fd, write_fd = os.pipe()
        try:
            self._process = self._spawn(write_fd)
        except OSError as error:
            self._failure = error
            os.close(read_fd)
            return
        finally:
            os.close(write_fd)
            self._started.set()
        with os.fdopen(read_fd, encoding="utf-8") as channel:
            self._read(channel)
        self._replies.put(None)
        self._process.wait()
        self._hang_up()

    def _hang_up(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

    def _spawn(self, write_fd: int) -> subprocess.Popen[bytes]:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "flowtuner.engine.worker",
                    str(self._spec_path),
                    str(write_fd),
                    str(os.getpid()),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write_fd,),
                env=self._environment,
                start_new_session=True,  # one signal, ours, and one group to end
            )

    def _read(self, channel: IO[str]) -> None:
        for line in channel:
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off by the worker's death
            if message["type"] == "reply":
                self._replies.put(message["data"])
            else:
                self._receive(message["type"], message["data"])

    def _obituary(self, name: str) -> str:
        assert self._process is not None
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " (the machine may be out of memory)" if code == -signal.SIGKILL else ""
        lines = self._log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        tail = "\n".join(f"    {line}" for line in lines)
        return f"the engine {how} during {name}{hint}; its log {self._log_path} ends with:\n{tail}"


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
