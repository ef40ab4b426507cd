"""Events for a server on another machine: a reader of the log that sends it there while the run goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

from flowtuner.engine.events import EventLog
from flowtuner.telling.delivery import Delivery

JOIN_S = 60.0


@contextlib.contextmanager
def delivered(events: EventLog) -> Iterator[None]:
    """Sends what is appended to the log to the server that started the run, if that asked for it."""
    delivery = Delivery.of(os.environ, socket.gethostname(), events)
    if delivery is None:
        yield
        return
    thread = threading.Thread(target=delivery.send_all, name="delivery", daemon=True)
    thread.start()
    try:
        yield
    finally:
        delivery.stop.set()
        thread.join(JOIN_S)
