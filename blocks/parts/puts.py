"""Small files on their way: taken up while a unit is staged, sent together when it is settled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flowtuner.durable import FileRecord
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.threads import run_together

REQUESTS_AT_ONCE = 8


@dataclass(frozen=True)
class Put:
    """A file that goes in one request."""

    source: Path
    key: str
    record: FileRecord
    on_bytes: Progress


def put_all(puts: Sequence[Put], put_one: Callable[[Put, threading.Event], None]) -> None:
    """Sends files in several threads and tells of each when it has arrived."""
    done: list[Put] = []
    told = 0

    def run(put: Put, stop: threading.Event) -> None:
        put_one(put, stop)
        done.append(put)

    def tell() -> None:
        nonlocal told
        news = done[told:]
        told += len(news)
        for put in news:
            put.on_bytes(put.record.size, put.record.size)
        if puts and not news:  # whoever listens may want to stop, also while nothing arrives
            latest = done[-1] if done else None
            (latest or puts[0]).on_bytes(latest.record.size if latest else 0, (latest or puts[0]).record.size)

    run_together([partial(run, put) for put in puts], REQUESTS_AT_ONCE, tell)
    tell()
