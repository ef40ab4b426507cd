"""The proxy itself, before a server that says what it got."""

from __future__ import annotations

import hashlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.fakes.faultproxy import FaultProxy, Rule

BODY = bytes(range(256)) * 1000


class Digester(BaseHTTPRequestHandler):
    """Answers a PUT with the SHA-256 of what arrived."""

    protocol_version = "HTTP/1.1"
    arrived: ClassVar[list[int]] = []

    def do_PUT(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers["Content-Length"]))
        self.arrived.append(len(data))
        answer = hashlib.sha256(data).hexdigest().encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    Digester.arrived.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Digester) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with FaultProxy(server.server_port) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def put(proxy: FaultProxy, path: str = "/a", *, is_chunked: bool = False, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        body = (BODY[start : start + 1000] for start in range(0, len(BODY), 1000)) if is_chunked else BODY
        connection.request("PUT", path, body, headers, encode_chunked=is_chunked)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_everything_passes_and_is_counted(proxy: FaultProxy, is_chunked: bool) -> None:
    assert put(proxy, is_chunked=is_chunked) == (201, hashlib.sha256(BODY).hexdigest())
    [seen] = proxy.log
    assert (seen.method, seen.path, seen.size, seen.status, seen.reply_size) == ("PUT", "/a", len(BODY), 201, 64)


@pytest.mark.parametrize("action", ["cut", "drop_reply", "cut_reply"])
def test_the_client_hears_nothing_whether_or_not_the_server_did_it(proxy: FaultProxy, action: str) -> None:
    proxy.rules = [Rule(action, "PUT", after=10)]  # type: ignore[arg-type]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        put(proxy)
    assert Digester.arrived == ([] if action == "cut" else [len(BODY)])
    assert put(proxy)[0] == 201


@pytest.mark.parametrize("action", ["garble", "garble_reply"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_one_bit_is_wrong(proxy: FaultProxy, action: str, is_chunked: bool) -> None:
    proxy.rules = [Rule(action, "PUT")]  # type: ignore[arg-type]
    status, digest = put(proxy, is_chunked=is_chunked)
    assert (status, len(digest)) == (201, 64)
    assert digest != hashlib.sha256(BODY).hexdigest()


def test_a_rule_counts_matches_and_looks_at_what_a_request_carries(proxy: FaultProxy) -> None:
    proxy.rules = [
        Rule("status", "PUT", "^/b", nth=2, code=429, headers={"Retry-After": "3"}, body="later"),
        Rule("status", carries="Bearer old", code=401, times=99),
    ]
    assert [put(proxy, "/b")[0] for _ in range(3)] == [201, 429, 201]
    assert put(proxy, Authorization="Bearer old") == (401, "")
    assert put(proxy, Authorization="Bearer new")[0] == 201


def test_a_stalled_request_moves_no_further(proxy: FaultProxy) -> None:
    proxy.rules = [Rule("stall", "PUT", after=1000)]
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.3)
    with pytest.raises(TimeoutError):
        connection.request("PUT", "/a", BODY)
        connection.getresponse()
    connection.close()
    assert Digester.arrived == []
