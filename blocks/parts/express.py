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
from urllib.parse import quote, urlsplit

LIMIT_BYTES = 1 << 20
FAILURES = 3
LONGEST_WAIT_S = 20.0
CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

Sign = Callable[[str, dict[str, str], str], Mapping[str, str]]
"""Called with the encoded path and the headers of a PUT, and the body's SHA-256; gives the headers to send."""


@dataclass(frozen=True)
class Lane:
    """Where small files go, and how a request is signed; `query` is what every address ends in."""

    base: str
    sign: Sign
    timeout_s: float
    query: str = ""


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
        try:
            connection = self._connection()
            headers = headers | {"content-length": str(len(body))}
            connection.request("PUT", path + self._lane.query, body, dict(self._lane.sign(path, headers, sha256)))
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            self._own.connection = None
            reply = None
        if reply is None or reply.status not in (200, 201):
            self._failures += 1
            self._closed.wait(_asked_wait_s(reply.headers) if reply else 0)
            return None
        self._failures = 0
        return {name.lower(): value for name, value in reply.headers.items()}

    def close(self) -> None:
        """Closes all connections."""
        self._closed.set()
        for connection in self._opened:
            connection.close()

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
