"""`flowtuner server` as a process: over https, and started again when its code changes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowtuner.api.app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@contextlib.contextmanager
def serving(home: Path, *words: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    environment |= {"FLOWTUNER_HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "HOME": str(home)}
    command = [sys.executable, "-m", "flowtuner.cli.main", "server", "--port", str(port), *words]
    with subprocess.Popen(command, env=environment, cwd=home, start_new_session=True) as server:
        try:
            yield port, server
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(90) in (0, -signal.SIGINT)


def await_answer(url: str, context: ssl.SSLContext | None = None, timeout_s: float = 120) -> bytes:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5, context=context) as reply:
                return bytes(reply.read())
        except OSError:
            assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.2)


def test_https_with_a_certificate_made_here(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "--ssl") as (port, _):
        certificate = tmp_path / "home" / "tls" / "certificate.pem"
        deadline = time.monotonic() + 60
        while not certificate.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        trusted = ssl.create_default_context(cafile=str(certificate))
        assert b"ready" in await_answer(f"https://localhost:{port}/ready", trusted)
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"https://localhost:{port}/health", timeout=5)
    key = tmp_path / "home" / "tls" / "key.pem"
    assert key.stat().st_mode & 0o077 == 0


def test_a_change_of_the_code_starts_the_api_again_and_leaves_prefect_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "--reload") as (port, _):
        await_answer(f"http://localhost:{port}/ready")
        before = [(tmp_path / "home" / "server" / name).read_text() for name in ("server.json", "worker.json")]
        time.sleep(3)
        uptime = read_uptime(port)
        os.utime(flowtuner.api.app.__file__)
        deadline = time.monotonic() + 60
        while read_uptime(port) >= uptime:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        await_answer(f"http://localhost:{port}/ready")
        assert before == [(tmp_path / "home" / "server" / name).read_text() for name in ("server.json", "worker.json")]


def read_uptime(port: int) -> float:
    return float(json.loads(await_answer(f"http://localhost:{port}/api/system/status"))["uptime_seconds"])
