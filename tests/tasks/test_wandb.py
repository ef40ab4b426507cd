"""W&B offline, by its own library: every step once on one axis, whatever happened in between; nothing secret."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flowtuner.options import LoadedConfig
from tasks.curves import POSITION
from tasks.trackers import JOIN_S
from tests.tasks.lives import told_to, train

BLOCK = 1 << 15

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return told_to(tmp_path, "wandb")


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bytes]:
    """All rows of history and the facts of each life, as the library wrote them to be synchronised."""
    from wandb.proto import wandb_internal_pb2

    rows, lives, raw = [], [], b""
    for file in sorted(folder.rglob("*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        raw += file.read_bytes()
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
            elif record.WhichOneof("record_type") == "run":
                lives.append({"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name})
    return rows, lives, raw


def _records(data: bytes) -> Iterator[bytes]:
    """The library's files are LevelDB logs behind seven bytes: blocks of 32 KiB, of chunks with a head of seven."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        rest = BLOCK - place % BLOCK
        if rest < 7:
            place += rest
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_a_resumed_run_goes_on_where_it_was(run: LoadedConfig) -> None:
    train(run, range(1, 6), shows=4)
    train(run, range(3, 8))
    folder = Path(run.config.output_dir) / "logs" / "wandb"
    rows, lives, raw = read(folder)
    losses = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    assert losses == [(step, 1 / step) for step in range(1, 8)]
    (pictures,) = [row for row in rows if "validation/images" in row or any("validation" in name for name in row)]
    assert pictures["step"] == 4
    assert len(list(folder.rglob("*.png"))) == 1
    known = json.loads((folder / POSITION).read_text())
    assert {tuple(life.values()) for life in lives} == {(known["id"], "shapes", "first")}
    assert b"canary-5167" not in raw
    assert b"pixart_sigma" in raw


def test_a_tracker_that_cannot_begin_costs_the_curves_not_the_run(run: LoadedConfig) -> None:
    logs = Path(run.config.output_dir) / "logs"
    logs.mkdir()
    (logs / "wandb").write_text("in the way")
    train(run, range(1, 2))
    assert "wandb is not up to date" in (logs / "events.jsonl").read_text()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """A W&B that refuses every key, or says nothing for a while."""
    servers = []

    class Handler(BaseHTTPRequestHandler):
        silence = 0.0

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_over.wait(self.silence)
            with contextlib.suppress(OSError):
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *values: Any) -> None:
            pass

    import wandb

    wandb.teardown()  # what it remembers of other tests' settings
    is_over = threading.Event()

    def start(silence: float) -> None:
        Handler.silence = silence
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)

    yield start
    is_over.set()
    for late in [thread for thread in threading.enumerate() if thread.name == "wandb"]:
        late.join()
    wandb.teardown()
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_refused_key_costs_the_curves_not_the_run(run: LoadedConfig, service: Callable[[float], None]) -> None:
    service(0)
    train(run, range(1, 3))
    log = (Path(run.config.output_dir) / "logs" / "events.jsonl").read_text()
    assert "wandb is not up to date: W&B: " in log
    assert "k" * 40 not in log


def test_a_service_that_hangs_holds_the_end_up_for_seconds_only(
    run: LoadedConfig, service: Callable[[float], None]
) -> None:
    service(600)
    begun = time.monotonic()
    train(run, range(1, 3))
    assert time.monotonic() - begun < JOIN_S + 5
    log = (Path(run.config.output_dir) / "logs" / "events.jsonl").read_text()
    assert "wandb is not up to date: not everything arrived within 20 s" in log
