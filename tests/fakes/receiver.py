"""Somebody's webhook receiver: keeps what it is told, and answers as a test wants."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Delivery:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int


@dataclass
class Receiver:
    """The receiver; `answer` says with which status the next request is answered, from all that came before."""

    address: str = ""
    answer: Callable[[list[Delivery]], int] = lambda before: 200
    deliveries: list[Delivery] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> list[Delivery]:
        """What was answered with success."""
        return [each for each in self.deliveries if each.status == 200]


@contextlib.contextmanager
def receiving(answer: Callable[[list[Delivery]], int] = lambda before: 200) -> Iterator[Receiver]:
    """A receiver on this machine until the block ends."""
    receiver = Receiver(answer=answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.answer(receiver.deliveries)
            receiver.deliveries.append(Delivery(self.path, headers, body, status))
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
