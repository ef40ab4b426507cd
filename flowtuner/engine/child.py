"""One life of the worker process: its pipes, its reader thread, its end; imports no torch."""

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from flowtuner import errors

SAVE_GRACE_S = 600.0
POLL_S = 0.5
LOG_TAIL_LINES = 12

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


class Child:
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
        """The process id, also after its end."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process is not None and self._process.poll() is None

    def call(self, name: str, arguments: dict[str, Any], meanwhile: Callable[[], None]) -> dict[str, Any]:
        """Gives an order and waits for its answer; what is to be done meanwhile is done again and again."""
        self._next_id += 1
        self.send({"id": self._next_id, "name": name, "arguments": arguments})
        while True:
            reply = self._next_reply(meanwhile)
            if reply is None:
                raise errors.EngineDied(self._obituary(name))
            if reply["id"] != self._next_id:
                continue  # the answer to an order that an interrupt made us abandon
            if reply["error"]:
                raise _RAISED_BY_NAME.get(reply["error"]["kind"], errors.EngineFault)(reply["error"]["message"])
            result: dict[str, Any] = reply["result"]
            return result

    def wake(self) -> None:
        """Has whoever waits for an answer look at what else there is to do."""
        self._replies.put({"id": 0})

    def send(self, command: dict[str, Any]) -> None:
        """Writes one order."""
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # a dead worker is noticed by its missing answer
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def end(self, grace_s: float = 0.0, is_saving: Callable[[], bool] = lambda: False) -> None:
        """Has it stop and save, waits for it, and then ends whatever is left of its group."""
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
        """Ends its whole group at once."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _kill_group(self) -> None:
        assert self._process is not None
        self.kill()
        self._process.wait()

    def _next_reply(self, meanwhile: Callable[[], None]) -> dict[str, Any] | None:
        # A timed wait lets signals reach the main thread.
        while True:
            try:
                reply = self._replies.get(timeout=POLL_S)
            except queue.Empty:
                meanwhile()
                continue
            meanwhile()
            return reply

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
