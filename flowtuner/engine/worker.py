"""The engine process: reads orders, runs them in a session, answers with events; saves before it leaves."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flowtuner import errors
from flowtuner.engine.crew import GATHERING, SHARED, Crew, die_with
from flowtuner.engine.events import NOTIFICATION
from flowtuner.engine.flag import Flag
from flowtuner.engine.processes import count_processes, wants_sharding
from flowtuner.engine.run import DATA_KEYS_VARIABLE, Command, RunSpec

if TYPE_CHECKING:
    from flowtuner.engine.session import Session

EXIT_SAVED = 0
EXIT_FAILED = 1


class Channel:
    """The way up: events and replies as JSON lines; silent once nobody reads."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def emit(self, type: str, data: dict[str, Any]) -> None:
        """Sends one message."""
        line = json.dumps({"type": type, "data": data}, default=str) + "\n"
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):  # the flow died; saving goes on
            self._file.write(line)
            self._file.flush()


class Orders:
    """The way down: a queue of commands, and the wishes to stop and to pause, which overtake them."""

    def __init__(self, file: IO[str]) -> None:
        self.stop = Flag()
        self.pause = Flag()
        self._file = file
        self._queue: queue.Queue[Command | None] = queue.Queue()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def next(self) -> Command | None:
        """Waits for the next command; None means: leave."""
        while not self.stop.is_set():
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=0.2)
        return None

    def _on_signal(self, number: int, frame: object) -> None:
        self.stop.set()

    def _read(self) -> None:
        for line in self._file:
            command = Command(**json.loads(line))
            if command.name == "stop":
                break
            if command.name == "pause":
                self.pause.set()
                continue
            self._queue.put(command)
        self.stop.set()


def main(spec_path: Path, event_fd: int, parent_pid: int) -> int:
    """Runs one engine from its first order to its last."""
    # SIGTERM, not SIGKILL: when the flow is killed, the engine still saves before it goes.
    die_with(parent_pid, signal.SIGTERM)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    channel = Channel(os.fdopen(event_fd, "w", encoding="utf-8"))
    orders = Orders(sys.stdin)
    started = time.monotonic()
    spec = RunSpec.load(spec_path, os.environ)
    world = count_processes(spec.loaded.config)
    crew = Crew(spec_path, world, _end_for, SHARED | GATHERING if wants_sharding(spec.loaded.config) else SHARED)
    os.environ.pop(DATA_KEYS_VARIABLE, None)  # what it starts besides need not know

    from flowtuner.engine.ranks import join  # brings torch: after the signal handlers, so that a stop is heard
    from flowtuner.engine.session import Session

    session = Session(spec, channel.emit, orders.stop, join(0, world), orders.pause)
    logging.getLogger(__name__).info("run %s ready after %.1f s", spec.run_id, time.monotonic() - started)
    while command := orders.next():
        channel.emit("reply", _answer(session, command, crew))
    return _leave(session, channel, crew)


def _answer(session: Session, command: Command, crew: Crew) -> dict[str, Any]:
    answer = _obey(session, command, crew)
    if answer["error"] and command.name in crew.shared:
        crew.abandon()
    return answer


def _obey(session: Session, command: Command, crew: Crew) -> dict[str, Any]:
    try:
        crew.tell(command.name, command.arguments)
        result = getattr(session, command.name)(**command.arguments)
    except errors.FlowtunerError as error:
        return {"id": command.id, "result": None, "error": {"kind": type(error).__name__, "message": str(error)}}
    except Exception as error:  # noqa: BLE001  the process's last line of defence: every fault becomes an answer
        traceback.print_exc()
        return {"id": command.id, "result": None, "error": {"kind": "EngineFault", "message": _explain(error)}}
    return {"id": command.id, "result": result, "error": None}


def _leave(session: Session, channel: Channel, crew: Crew) -> int:
    if not crew.is_whole:
        return EXIT_FAILED  # a checkpoint needs everybody
    answer = _answer(session, Command(0, "close"), crew)
    crew.dismiss()
    if not answer["error"]:
        return EXIT_SAVED
    message = f"no checkpoint at the stop: {answer['error']['message']}"
    channel.emit(NOTIFICATION, {"severity": "error", "message": message})
    return EXIT_FAILED


def _explain(error: Exception) -> str:
    name = type(error).__name__
    if name == "OutOfMemoryError" or isinstance(error, MemoryError):
        return (
            f"out of memory: {error}. Lower train_batch_size or resolution, turn gradient_checkpointing on, "
            "or train a LoRA (model_type=lora)."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}: {error.filename or 'the output folder'}. Nothing that was complete is lost."
    return f"{name}: {error} (the engine's log has the traceback)"


def _end_for(rank: int, code: int) -> None:
    # Without its share no step is whole. The flow starts all of them again, from the newest checkpoint.
    logging.getLogger(__name__).error("the process of rank %d ended with %d: the others end too", rank, code)
    logging.shutdown()
    os._exit(EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
