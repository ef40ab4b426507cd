"""Small uploads without an SDK's overhead: signed requests over kept connections; what fails goes the SDK's way."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

LIMIT_BYTES = 1 << 20
FAILURES = 3
LONGEST_WAIT_S = 20.0
CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

Sign = Callable[[str, dict[str, str], str], Mapping[str, str]]
"""Called with the encoded path and the headers of a PUT, and the body's SHA-256; gives the headers to send."""


SignQuery = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Called with the parameters of a GET; gives the headers to send."""


@dataclass(frozen=True)
class Lane:
    """Where small files go, and how a request is signed; `query` is what every address ends in."""

    base: str
    sign: Sign
    timeout_s: float
    query: str = ""
    sign_query: SignQuery | None = None


class Express:
    """Connections to one address, one per thread; after a few failures it is no longer tried."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._url = urlsplit(lane.base)
        self._own = threading.local()
        self._closed = threading.Event()
        self._opened: list[http.client.HTTPConnection] = []
        self._context = _trust() if self._url.scheme == "https" else None
        # A proxy is the SDK's business.
        self._failures = FAILURES if _has_proxy(self._url.scheme, self._url.hostname or "") else 0

    def put(self, name: str, headers: dict[str, str], body: bytes, sha256: str) -> Mapping[str, str] | None:
        """Sends an object and answers with the reply's headers, their names small; None where it did not succeed."""
        if self._failures >= FAILURES or len(body) > LIMIT_BYTES:
            return None
        path = f"{self._url.path}/{quote(name, safe='/-_.~')}"
        signed = self._lane.sign(path, headers | {"content-length": str(len(body))}, sha256)
        reply = self._ask("PUT", path, {}, body, signed)
        return {name.lower(): value for name, value in reply[0].items()} if reply else None

    def fetch(self, query: Mapping[str, str]) -> bytes | None:
        """Asks about the place itself; None where that did not succeed or nobody can sign it."""
        if self._failures >= FAILURES or self._lane.sign_query is None:
            return None
        reply = self._ask("GET", self._url.path, query, None, self._lane.sign_query(query))
        return reply[1] if reply else None

    def close(self) -> None:
        """Closes all connections."""
        self._closed.set()
        for connection in self._opened:
            connection.close()

    def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPMessage, bytes] | None:
        asked = "&".join(filter(None, (urlencode(query, quote_via=quote), self._lane.query)))
        try:
            connection = self._connection()
            connection.request(method, f"{path}?{asked}" if asked else path, body, dict(headers))
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException):
            self._own.connection = None
            reply = None
        if reply is None or reply.status not in (200, 201):
            self._failures += 1
            self._closed.wait(_asked_wait_s(reply.headers) if reply else 0)
            return None
        self._failures = 0
        return reply.headers, content

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            host, timeout_s = self._url.netloc, self._lane.timeout_s
            connection = (
                http.client.HTTPSConnection(host, timeout=timeout_s, context=self._context)
                if self._context
                else http.client.HTTPConnection(host, timeout=timeout_s)
            )
            self._own.connection = connection
            self._opened.append(connection)
        return connection


def _asked_wait_s(headers: http.client.HTTPMessage) -> float:
    asked = headers.get("Retry-After") or ""
    return min(float(asked), LONGEST_WAIT_S) if asked.isdecimal() else 0


def _trust() -> ssl.SSLContext:
    import certifi

    named = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), certifi.where())
    with contextlib.suppress(OSError):
        return ssl.create_default_context(cafile=named)
    return ssl.create_default_context()


def _has_proxy(scheme: str, host: str) -> bool:
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
