"""What the HTTP API costs: many small requests, many streams, a large body, and the time until it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.harness import Row
from benchmarks.http_clients import Paced, ask_paced, follow_streams, upload
from benchmarks.http_server import GO, JOB, KEY, LOGGED, TOLD

PER_SECOND, SECONDS = 500, 8.0
STREAMS = 1000
GIB = 1 << 30
STATUS = "/api/training/status"
EVENTS = f"/api/training/events?since_index={LOGGED - 5}"


def measure_http(ground: Path, rounds: int) -> Iterator[Row]:
    """Everything that is asked of the API, on this machine, client and server sharing its cores."""
    yield from _measure_requests(ground / "http", max(1, rounds // 2))
    yield from _measure_streams(ground / "http-streams")
    yield _measure_upload(ground / "http-upload")
    yield _measure_start(ground / "http-start", max(1, rounds // 3))


def _measure_requests(home: Path, rounds: int) -> Iterator[Row]:
    with _serving(home, "api") as (port, _), _serving(home, "constant") as (peer, _):
        for path in (STATUS, EVENTS):
            own, constant = [], []
            for _ in range(rounds):
                constant.append(_ask(peer, "/constant"))
                own.append(_ask(port, path))
            p99, peer_p99 = (median(paced.p99_ms for paced in each) for each in (own, constant))
            note = (
                f"median {median(paced.median_ms for paced in own):.1f} ms; a constant FastAPI route's p99: "
                f"{peer_p99:.1f} ms, ratio {p99 / peer_p99:.1f}; {sum(paced.failed for paced in own)} refused"
            )
            name = path.partition("?")[0]
            yield Row(f"{PER_SECOND} requests/s of {name}: p99", p99, "ms", at_most=50, note=note)


def _ask(port: int, path: str) -> Paced:
    asyncio.run(ask_paced(port, path, KEY, PER_SECOND, 1.0))  # connections and caches first
    return asyncio.run(ask_paced(port, path, KEY, PER_SECOND, SECONDS))


def _measure_streams(home: Path) -> Iterator[Row]:
    with _serving(home, "api") as (port, process):
        told, seconds = asyncio.run(_follow(port, home))
        yield Row(
            f"{STREAMS:,} SSE clients: events that arrived, of those told",
            sum(told) / (STREAMS * TOLD),
            at_least=1.0,
            note=f"{sum(told):,} in {seconds:.0f} s, each in order and once",
        )
        yield Row(f"{STREAMS:,} SSE clients: the server's peak memory", _peak_mib(process), "MiB", at_most=300)


async def _follow(port: int, home: Path) -> tuple[list[int], float]:
    path = f"/api/training/events/stream?job_id={JOB}&since_index={LOGGED}"
    all_there = asyncio.Event()
    following = asyncio.create_task(follow_streams(port, path, KEY, STREAMS, LOGGED + TOLD, all_there))
    await all_there.wait()
    began = time.perf_counter()
    (home / GO).touch()
    return await following, time.perf_counter() - began


def _measure_upload(home: Path) -> Row:
    with _serving(home, "api") as (port, process):
        assert asyncio.run(upload(port, KEY, "first", 1, 16 << 20)) == 200
        before = _peak_mib(process)
        began = time.perf_counter()
        assert asyncio.run(upload(port, KEY, "big", 4, GIB // 4)) == 200
        note = f"{1024 / (time.perf_counter() - began):.0f} MiB/s"
        growth = _peak_mib(process) - before
        return Row("1 GiB uploaded: growth of the server's peak memory", growth, "MiB", at_most=32, note=note)


def _measure_start(home: Path, rounds: int) -> Row:
    """Until a job could start, over the time until Prefect's own server answers."""
    ratios = []
    for number in range(rounds):
        alone = _time_start(["prefect", "server", "start"], home / f"prefect-{number}", "/api/health")
        ours = _time_start(["flowtuner.cli.main", "server"], home / f"ours-{number}", "/ready")
        ratios.append(ours / alone)
    return Row("server ready, over Prefect's own start-up", median(ratios), at_most=1.5)


def _time_start(command: list[str], home: Path, path: str) -> float:
    home.mkdir(parents=True)
    port = _free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    environment |= {"FLOWTUNER_HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "HOME": str(home)}
    began = time.perf_counter()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            env=environment,
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await(port, path, process)
        return time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _serving(home: Path, kind: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    if kind == "api":
        shutil.rmtree(home, ignore_errors=True)
    (home / "datasets").mkdir(parents=True, exist_ok=True)
    port = _free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.http_server", str(home), kind, str(port)])
    try:
        _await(port, "/health" if kind == "api" else "/constant", process)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def _await(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended before it answered"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers at {path}")


def _peak_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
