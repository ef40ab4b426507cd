"""The user's own commands as tasks: after a checkpoint, after a verified upload, and instead of rendering."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.tasks import exponential_backoff

from flowtuner import durable
from flowtuner.background import in_background
from flowtuner.engine.events import SCRIPT, EventLog, read_events
from flowtuner.engine.run import Checkpoint
from flowtuner.errors import Terminal
from flowtuner.options import TrainingConfig
from flowtuner.publishing.destination import PublishResult
from flowtuner.publishing.scripts import Execution, execute, expand, hide, needs_checkpoint, values_of

AT_ONCE = 2
TAIL = 2000
POLL_S = 0.2
LEAVE_S = 0.5
BACKOFF_S = 2.0


class ScriptFailed(Terminal):
    """A script of the user's did not end well; the run goes on."""


@dataclass(frozen=True)
class Occasion:
    """What a script is called for; the same upload is never an occasion twice."""

    script: str
    what: str
    step: int
    destination: str = ""
    manifest_sha256: str = ""
    local: str = ""
    remote: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two calls the same."""
        return self.script, self.destination, self.what, self.manifest_sha256

    @property
    def title(self) -> str:
        """How the task is called."""
        return f"{self.script}: {self.what}" + (f" in {self.destination}" if self.destination else "")


class Scripts:
    """Calls the scripts of one run, two at a time, in threads that neither training nor uploads wait for."""

    def __init__(self, config: TrainingConfig, output_dir: Path, events: EventLog) -> None:
        self._config = config
        self._output_dir = output_dir
        self._events = events
        self._stop = threading.Event()
        self._turn = threading.Semaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._called = _read_called(events.path) if config.post_upload_script else set()
        self._running: list[Future[Any]] = []
        self._rows: list[dict[str, Any]] = []
        # The flow's own context: what is called from an upload's thread still belongs to the flow.
        self._context = contextvars.copy_context()

    def after_checkpoint(self, saved: Checkpoint) -> None:
        """Calls `post_checkpoint_script` for a checkpoint that was just saved."""
        if self._config.post_checkpoint_script:
            self._call_later(Occasion("post_checkpoint_script", saved.path.name, saved.step, local=str(saved.path)))

    def after_upload(self, result: PublishResult) -> None:
        """Calls `post_upload_script` for what a destination was just seen to hold, unless that was done before."""
        if not self._config.post_upload_script or not result.verified:
            return
        local = self._output_dir if result.name == "release" else self._output_dir / result.name
        occasion = Occasion(
            "post_upload_script", result.name, result.step, result.destination, result.manifest_sha256, str(local),
            result.uri or "",
        )  # fmt: skip
        with self._lock:
            is_new = occasion.key not in self._called
            self._called.add(occasion.key)
        if is_new:
            self._call_later(occasion)

    def validate(self, step: int, newest: Checkpoint | None) -> None:
        """Calls `validation_external_script`, and waits for it unless it is to run in the background."""
        script = self._config.validation_external_script or ""
        if newest is None and needs_checkpoint(script):
            self._events.notify("warning", f"no validation at step {step}: there is no checkpoint to validate yet")
            return
        local = str(newest.path) if newest else ""
        occasion = Occasion("validation_external_script", f"step-{step}", step, local=local)
        if self._config.validation_external_background:
            self._call_later(occasion)
        else:
            self._call(occasion)

    def finish(self, left: Callable[[], float] | None = None) -> list[dict[str, Any]]:
        """Waits for all that were called, as long as there is time; answers with what became of each."""
        pending = set(self._running)
        while pending and not self._stop.is_set():
            pending = wait(pending, POLL_S).not_done
            if left is not None and left() <= 0:
                self._stop.set()
        # A script that is told to end has a moment for it; nobody waits for one that does not.
        wait(pending, LEAVE_S)
        with self._lock:
            return list(self._rows)

    def _call_later(self, occasion: Occasion) -> None:
        def call() -> None:
            with self._turn:
                if not self._stop.is_set():
                    self._call(occasion)

        self._running.append(self._context.copy().run(in_background, call, occasion.title))

    def _call(self, occasion: Occasion) -> None:
        retries = self._config.script_retries
        tried = run_script.with_options(retries=retries, retry_delay_seconds=exponential_backoff(BACKOFF_S))
        if not retries:
            tried = run_script
        tried(occasion, self._config, self._stop, self._tell, return_state=True)

    def _tell(self, occasion: Occasion, execution: Execution | None, message: str) -> None:
        state = "started"
        facts: dict[str, Any] = {}
        if execution is not None or message:
            state = "completed" if execution and execution.is_success else "failed"
            facts = {"exit_code": execution.exit_code if execution else None, "message": message}
            facts["seconds"] = round(execution.seconds, 2) if execution else 0.0
            facts["log"] = self._keep(occasion, execution.output) if execution and execution.output else None
            facts["output"] = execution.output[-TAIL:] if execution else ""
        row = asdict(occasion) | {"state": state} | facts
        self._events.append(SCRIPT, row)
        if state != "started":
            with self._lock:
                self._rows.append(row)
        if state == "failed":
            self._events.notify("warning", f"{occasion.title}: {message}")

    def _keep(self, occasion: Occasion, output: str) -> str:
        place = "-".join(filter(None, (occasion.script, occasion.what, occasion.destination)))
        path = (
            self._output_dir
            / "logs"
            / "scripts"
            / f"{''.join(c if c.isalnum() or c in '-_' else '_' for c in place)}.log"
        )
        durable.write_text(path, output)
        return str(path)


Tell = Callable[[Occasion, Execution | None, str], None]


@task(task_run_name="{occasion.title}", cache_policy=NO_CACHE)
def run_script(occasion: Occasion, config: TrainingConfig, stop: threading.Event, tell: Tell) -> int:
    """Runs one script; its output goes to the task's log, and how it ended to the run's."""
    template = str(getattr(config, occasion.script))
    # The template, not the arguments: those may hold what the environment keeps secret.
    get_run_logger().info("calling %s: %s", occasion.script, hide(template))
    tell(occasion, None, "")
    started = time.monotonic()
    values = values_of(config, occasion.step, occasion.local, occasion.remote)
    try:
        execution = execute(expand(template, values), config.script_timeout_seconds, stop)
    except OSError as error:
        message = f"could not be started: {error.strerror}: {error.filename}"
        tell(occasion, Execution(127, time.monotonic() - started, ""), message)
        raise ScriptFailed(f"{occasion.script} {message}") from error
    if execution.output:
        get_run_logger().info("output of %s:\n%s", occasion.script, execution.output[-5 * TAIL :])
    message = "" if execution.is_success else f"it {execution.describe()}"
    tell(occasion, execution, message)
    if not execution.is_success:
        raise ScriptFailed(f"{occasion.script} {execution.describe()}")
    return execution.exit_code


def _read_called(log: Path) -> set[tuple[str, ...]]:
    return {
        (data["script"], data["destination"], data["what"], data["manifest_sha256"])
        for data in (event.data for event in read_events(log) if event.type == SCRIPT)
    }
