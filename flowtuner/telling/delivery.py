"""Sends a run's events to the server that started it, if that is on another machine: at least once each, in order.

The log on the disk is what waits while the server is away; the server knows which events it has, and says so.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flowtuner.engine.events import Event, EventLog, Tail

URL, TOKEN, HOST = "FLOWTUNER_EVENTS_URL", "FLOWTUNER_EVENTS_TOKEN", "FLOWTUNER_EVENTS_HOST"
POLL_S, TIMEOUT_S = 0.5, 30.0
FIRST_WAIT_S, LONGEST_WAIT_S, LAST_WORDS_S = 1.0, 30.0, 20.0
MOST_EVENTS, MOST_BYTES = 500, 8 << 20


class NotWanted(Exception):  # noqa: N818  an answer, not a fault of ours
    """The server will never take the events of this run."""


@dataclass
class Delivery:
    """One run's way to its server."""

    url: str
    token: str
    log: Path
    run: str
    stop: threading.Event = field(default_factory=threading.Event)
    _waiting: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tail = Tail(self.log)

    @classmethod
    def of(cls, environ: Mapping[str, str], host: str, events: EventLog) -> Self | None:
        """The delivery that the server asked for; None if it reads the log itself."""
        if not environ.get(URL) or environ.get(HOST) == host:
            return None
        return cls(environ[URL], environ.get(TOKEN, ""), events.path, events.run)

    def send_all(self) -> None:
        """Sends until the run is over and everything is there, or the server stays away too long after its end."""
        wait_s, ends_at = FIRST_WAIT_S, None
        while True:
            is_over = self.stop.is_set()
            if is_over and ends_at is None:
                ends_at = time.monotonic() + LAST_WORDS_S
            try:
                count = self._send_some()
                wait_s = FIRST_WAIT_S
            except NotWanted:
                return
            except OSError:
                if ends_at is not None and time.monotonic() + wait_s > ends_at:
                    return
                time.sleep(wait_s) if is_over else self.stop.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            if not count and is_over:
                return
            if not count:
                self.stop.wait(POLL_S)

    def _send_some(self) -> int:
        if len(self._waiting) < MOST_EVENTS:  # the others wait on the disk
            self._waiting += [event for event in self._tail.read() if event.run == self.run]
        batch = list(self._collect())
        if batch:
            known = self._post({"run": self.run, "events": batch})
            self._waiting = [event for event in self._waiting if event.seq > known]
        return len(batch)

    def _collect(self) -> Iterator[dict[str, Any]]:
        size = 0
        for number, event in enumerate(self._waiting[:MOST_EVENTS]):
            packed = _pack(event)
            size += len(json.dumps(packed, default=str))
            if number and size > MOST_BYTES:
                return
            yield packed

    def _post(self, body: dict[str, Any]) -> int:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url, json.dumps(body, default=str).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return int(json.load(reply)["last_source"])
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 404, 409, 422):
                raise NotWanted from error
            raise


def _pack(event: Event) -> dict[str, Any]:
    paths = [Path(path) for kind in ("images", "videos") for path in event.data.get(kind, ())]
    pictures = [{"name": path.name, "data": _read(path)} for path in paths if path.is_file()]
    return {"seq": event.seq, "time": event.time, "type": event.type, "data": event.data, "pictures": pictures}


def _read(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
