"""Commands of the user's own: a template becomes arguments, and a process whose end, output and time are known."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import string
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from flowtuner.errors import Fault
from flowtuner.options import TrainingConfig
from flowtuner.options.redaction import HIDDEN, PUBLIC, SECRET

SCRIPTS = ("post_checkpoint_script", "post_upload_script", "validation_external_script")
CONFIGURED = ("tracker_run_name", "tracker_project_name", "model_family", "model_type", "lora_type")
OWN_PREFIX = "validation_"
POLL_S = 0.1
KILL_AFTER_S = 5.0
OUTPUT_LIMIT = 1 << 20
CUT_OFF_BY_STOP, CUT_OFF_BY_TIME = -1000, -1001
LEAST_SECRET = 6  # shorter values would be found everywhere
AUTH = re.compile(r"auth", re.I)


@dataclass(frozen=True)
class Execution:
    """How a script ended."""

    exit_code: int
    seconds: float
    output: str

    @property
    def is_success(self) -> bool:
        """Whether it ended by itself and without complaint."""
        return self.exit_code == 0

    def describe(self) -> str:
        """The end in words."""
        if self.exit_code == CUT_OFF_BY_TIME:
            return f"was ended after {self.seconds:.0f} s, its time"
        if self.exit_code == CUT_OFF_BY_STOP:
            return "was ended because the run was stopped"
        if self.exit_code < 0:
            return f"was killed by {signal.Signals(-self.exit_code).name}"
        return f"ended with exit code {self.exit_code}"


def values_of(config: TrainingConfig, step: int, local: str = "", remote: str = "") -> dict[str, Any]:
    """What the placeholders of a script stand for."""
    values = {name: getattr(config, name) for name in CONFIGURED}
    values |= {name: getattr(config, name) for name in type(config).model_fields if name.startswith(OWN_PREFIX)}
    return values | {
        "global_step": step,
        "local_checkpoint_path": local,
        "remote_checkpoint_path": remote,
        "huggingface_path": config.hub_model_id,
    }


def needs_checkpoint(template: str) -> bool:
    """Whether a script asks for a checkpoint of this disk."""
    return any(field == "local_checkpoint_path" for word in shlex.split(template) for _, field, _ in _parse(word))


def expand(template: str, values: Mapping[str, Any]) -> list[str]:
    """The arguments: the template is split first, so that no value, whatever is in it, becomes several or none."""
    return [_expand_word(word, values) for word in shlex.split(template)]


def check_script(option: str, template: str, config: TrainingConfig) -> list[Fault]:
    """Every mistake in a script's template, found by filling it in."""
    try:
        words = shlex.split(template)
        parts = [part for word in words for part in _parse(word)]
    except ValueError as error:
        return [Fault(option, template, "", f"cannot be split into arguments: {error}", suggestion="Check the quotes.")]
    if not words:
        return [Fault(option, template, "", "names no program")]
    values = values_of(config, 1)
    faults = [fault for _, field, spec in parts if field is not None for fault in _check(option, field, spec, values)]
    return faults or list(_check_program(option, words[0], values))


def execute(
    command: Sequence[str],
    timeout_s: float,
    stop: threading.Event,
    environ: Mapping[str, str] = os.environ,
) -> Execution:
    """Runs a command to its end, or to that of its time or the run; raises OSError when it cannot be started."""
    started = time.monotonic()
    # A file instead of a pipe: a child that outlives the script may keep it open.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        code: int | None = None
        try:
            code = _wait(process, started + timeout_s, stop)
        finally:
            if code is None or code <= CUT_OFF_BY_STOP:
                _end(process)
        return Execution(code, time.monotonic() - started, hide(_read_tail(output), environ))


def hide(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """A text without the values of environment variables that are secret by their names."""
    secrets = [
        value
        for name, value in environ.items()
        if (SECRET.search(name) or AUTH.search(name)) and not PUBLIC.search(name) and len(value) >= LEAST_SECRET
    ]
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _parse(word: str) -> Iterator[tuple[str, str | None, str]]:
    for literal, field, spec, conversion in string.Formatter().parse(word):
        if conversion or "{" in (spec or ""):
            raise ValueError(f"{{{field}}} has a conversion or a placeholder within it")
        yield literal, field, spec or ""


def _expand_word(word: str, values: Mapping[str, Any]) -> str:
    text = ""
    for number, (literal, field, spec) in enumerate(_parse(word)):
        # Only what the user wrote is expanded, never what is filled in.
        text += os.path.expandvars(os.path.expanduser(literal) if number == 0 else literal)
        if field is not None:
            text += _format(values[field], spec)
    return text


def _format(value: Any, spec: str) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return json.dumps(value)
    return format(value if isinstance(value, int | float) else str(value), spec)


def _check(option: str, field: str, spec: str, values: Mapping[str, Any]) -> Iterator[Fault]:
    if field not in values:
        near = get_close_matches(field, values, n=1)
        allowed = ", ".join(name for name in values if not name.startswith(OWN_PREFIX)) + ", any validation_* option"
        hint = f"Did you mean {{{near[0]}}}?" if near else "Write {{ and }} for braces that are no placeholder."
        yield Fault(option, f"{{{field}}}", "", "has an unknown placeholder", allowed, hint)
        return
    try:
        _format(values[field], spec)
    except ValueError as error:
        yield Fault(option, f"{{{field}:{spec}}}", "", f"has a placeholder that cannot be filled in: {error}")


def _check_program(option: str, word: str, values: Mapping[str, Any]) -> Iterator[Fault]:
    if any(field is not None for _, field, _ in _parse(word)):
        return
    program = _expand_word(word, values)
    if shutil.which(program) is None:
        is_file = os.path.isfile(program)
        problem = "is not executable" if is_file else "does not exist"
        advice = f"chmod +x it, or write: python {word} ..." if is_file else "Give its path, or the name of a program."
        yield Fault(option, word, "", f"its program {problem}", suggestion=advice)


def _wait(process: subprocess.Popen[bytes], deadline: float, stop: threading.Event) -> int:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        if stop.is_set():
            return CUT_OFF_BY_STOP
        if time.monotonic() >= deadline:
            return CUT_OFF_BY_TIME


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_AFTER_S)
            return


def _read_tail(output: Any) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - OUTPUT_LIMIT))
    return bytes(output.read()).decode(errors="replace")
