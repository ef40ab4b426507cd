"""A Prefect server of our own for those who have none: one per home, on loopback, ended by whoever leaves last.

Prefect reads its settings when it is imported, and a server or client that is already running keeps them. This module
therefore imports nothing of Prefect: it starts the server as a process and hands its address over in the environment.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from flowtuner import durable
from flowtuner.errors import Transient
from flowtuner.jobs.settings import find_api_url

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
REPLY_TIMEOUT_S = 5.0
POLL_S = 0.2
LOG_TAIL_LINES = 15
LOOPBACK = "127.0.0.1"


class ServerDown(Transient):
    """The Prefect server did not start."""


@dataclass(frozen=True)
class ServerAddress:
    """Where Prefect's API and UI are, and the `user:password` that both ask for."""

    api_url: str
    ui_url: str
    auth: str | None
    is_ours: bool
    revive: Callable[[], bool] = field(default=lambda: False, compare=False)
    """Starts a server of ours again if it died; whether it had to."""


@dataclass(frozen=True)
class _Record:
    pid: int
    port: int


@contextlib.contextmanager
def prefect_server(home: Path | None = None, start_timeout_s: float = START_TIMEOUT_S) -> Iterator[ServerAddress]:
    """Points the environment at the configured Prefect API, or at this home's own server; import prefect inside."""
    if configured := find_api_url():
        yield ServerAddress(configured, ui_url_of(configured), os.environ.get("PREFECT_API_AUTH_STRING"), is_ours=False)
        return
    folder = (home or default_home()) / "server"
    folder.mkdir(parents=True, exist_ok=True)
    server = _Server(folder)
    with server.held(start_timeout_s) as record, _environment(server.client_environment(record)):
        ui_url = f"http://{LOOPBACK}:{record.port}"
        yield ServerAddress(_api_url(record.port), ui_url, server.auth, is_ours=True, revive=server.revive)


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Flowtuner keeps what outlives a run: FLOWTUNER_HOME, or ~/.flowtuner."""
    return Path(environ.get("FLOWTUNER_HOME") or "~/.flowtuner").expanduser()


class _Server:
    """The server of one home; a shared lock held by every user counts them, and survives none of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record_path = folder / "server.json"
        self._log_path = folder / "server.log"
        self.auth = _read_or_create_auth(folder / "auth")
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def held(self, start_timeout_s: float) -> Iterator[_Record]:
        with (self._folder / "users.lock").open("a") as users:
            with self._turn():
                record = self._find() or self._start(start_timeout_s)
                fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield record
            finally:
                _let_prefect_finish()
                with self._turn():
                    self._leave(users)

    def revive(self) -> bool:
        """Starts the server again, on the same port and database, if its process is gone."""
        with self._turn():
            record = self._read_record()
            if self._process is not None:
                self._process.poll()  # a child that was killed is there until somebody asks
            if record and _is_prefect(record.pid):
                return False
            self._start(START_TIMEOUT_S)
            return True

    def client_environment(self, record: _Record) -> dict[str, str]:
        loopback = f"{LOOPBACK},localhost"
        return {
            "PREFECT_API_URL": _api_url(record.port),
            "PREFECT_API_AUTH_STRING": self.auth,
            "DO_NOT_TRACK": "1",
            # A proxy for the internet must not be asked for a server on this machine.
            "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), loopback))),
            "no_proxy": ",".join(filter(None, (os.environ.get("no_proxy"), loopback))),
        }

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        # Starting and stopping are one at a time, or two runs that begin together would start two servers.
        with (self._folder / "turn.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _leave(self, users: IO[str]) -> None:
        fcntl.flock(users, fcntl.LOCK_UN)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody still uses it
        if record := self._read_record():
            _end_group(record)
        if self._process is not None:
            self._process.poll()

    def _find(self) -> _Record | None:
        record = self._read_record()
        return record if record and _is_prefect(record.pid) and self._answers(record) else None

    def _read_record(self) -> _Record | None:
        try:
            return _Record(**durable.read_json(self._record_path))
        except (OSError, ValueError, TypeError):
            return None

    def _start(self, timeout_s: float) -> _Record:
        before = self._read_record()
        if before:
            _end_group(before)  # one that hangs would keep the database locked
        port = _choose_port(before.port if before else None)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
        with self._log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                env=dict(os.environ) | self._server_environment(port),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is meant for the run
            )
        self._process = process
        record = _Record(process.pid, port)
        durable.write_json(self._record_path, asdict(record))
        self._await_readiness(process, record, timeout_s)
        return record

    def _server_environment(self, port: int) -> dict[str, str]:
        url = _api_url(port)
        return {
            "PREFECT_HOME": str(self._folder / "prefect"),
            "PREFECT_API_URL": url,
            "PREFECT_SERVER_UI_API_URL": url,  # otherwise the UI looks for the API on the default port and stays blank
            "PREFECT_SERVER_API_AUTH_STRING": self.auth,
            "PREFECT_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def _await_readiness(self, process: subprocess.Popen[bytes], record: _Record, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerDown(f"the Prefect server ended with exit code {process.returncode}. {self._log_tail()}")
            if self._answers(record):
                return
            time.sleep(POLL_S)
        _end_group(record)
        raise ServerDown(
            f"the Prefect server was not ready after {timeout_s:.0f} s. Is the machine overloaded? {self._log_tail()}"
        )

    def _answers(self, record: _Record) -> bool:
        # /health answers before the database does, so ask for something that has to be looked up.
        request = urllib.request.Request(
            f"{_api_url(record.port)}/flows/filter",
            data=json.dumps({"limit": 1}).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": "Basic " + base64.b64encode(self.auth.encode()).decode(),
            },
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=REPLY_TIMEOUT_S) as reply:
                return bool(reply.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def _log_tail(self) -> str:
        lines = self._log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return f"Its log {self._log_path} ends with:\n" + "\n".join(f"    {line}" for line in lines)


def _let_prefect_finish() -> None:
    # Prefect sends logs and events from threads that would otherwise find the server gone at the interpreter's end.
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=STOP_TIMEOUT_S)
    EventsWorker.drain_all(timeout=STOP_TIMEOUT_S)


def _read_or_create_auth(path: Path) -> str:
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(f"flowtuner:{secrets.token_urlsafe(24)}")
    return path.read_text()


def _choose_port(preferred: int | None) -> int:
    # The port of last time keeps bookmarks of the UI valid.
    for port in (preferred or 0, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise ServerDown(f"no port is free on {LOOPBACK}: close what you can and try again")


def _is_prefect(pid: int) -> bool:
    # A process id may have been given to somebody else since the record was written.
    try:
        return b"prefect" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return not Path("/proc").exists()


def _end_group(record: _Record) -> None:
    if not _is_prefect(record.pid):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(record.pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if _is_gone(record.pid):
                return
            time.sleep(POLL_S / 4)


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # the server may be another process's child
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _api_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}/api"


def ui_url_of(api_url: str) -> str:
    """Where people look at the server with this API."""
    return api_url.rstrip("/").removesuffix("/api")
