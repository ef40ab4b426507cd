"""One server's address and how it is spoken to: keys, certificates, tries, refusals."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from flowtuner.errors import Terminal, Transient

TIMEOUT_S = 30.0
TRIES = 4
FIRST_WAIT_S = 0.5
WORTH_ANOTHER_TRY = (429, 502, 503, 504)


class Refused(Terminal):
    """The server answered that it will not; `code` is for programs."""

    def __init__(self, status: int, code: str, detail: str, body: Mapping[str, Any]) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.body = dict(body)


class Unreachable(Transient):
    """No server answers."""


@dataclass(frozen=True)
class ServerPlace:
    """Where a server is, with which key, and whether its certificate is checked."""

    url: str
    key: str | None = None
    verifies: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """As SIMPLETUNER_HOST, _PORT, _API_KEY, _SSL_ENABLED and _SSL_NO_VERIFY say."""
        host = environ.get("SIMPLETUNER_HOST") or "localhost"
        port = environ.get("SIMPLETUNER_PORT") or "8001"
        scheme = "https" if _is_on(environ.get("SIMPLETUNER_SSL_ENABLED")) else "http"
        place = "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104  where a server listens is no address
        key = environ.get("SIMPLETUNER_API_KEY") or None
        return cls(f"{scheme}://{place}:{port}", key, not _is_on(environ.get("SIMPLETUNER_SSL_NO_VERIFY")))


class Connection:
    """Asks, asks again where that is safe, and turns refusals into exceptions."""

    def __init__(self, place: ServerPlace, transport: httpx.BaseTransport | None = None) -> None:
        self.place = place
        headers = {"Accept": "application/json"} | ({"X-API-Key": place.key} if place.key else {})
        self._http = httpx.Client(
            base_url=place.url, headers=headers, timeout=TIMEOUT_S, verify=place.verifies, transport=transport
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def ask(self, method: str, path: str, *, is_repeatable: bool | None = None, **more: Any) -> Any:
        """The body of the answer; what may be asked twice without harm is asked again if nobody answers."""
        may_repeat = method in ("GET", "PUT", "DELETE") if is_repeatable is None else is_repeatable
        wait_s = FIRST_WAIT_S
        for left in reversed(range(TRIES if may_repeat else 1)):
            try:
                reply = self._http.request(method, path, **more)
            except httpx.TransportError as error:
                if not left:
                    raise Unreachable(self._describe(error)) from error
            else:
                if reply.status_code not in WORTH_ANOTHER_TRY or not left:
                    return read(reply)
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("the last try returns or raises")

    def stream(self, path: str, **more: Any) -> Any:
        """An answer without end, as a context manager of httpx."""
        timeout = httpx.Timeout(TIMEOUT_S, read=60.0)  # a living stream says something every 15 seconds
        return self._http.stream("GET", path, timeout=timeout, **more)

    def _describe(self, error: Exception) -> str:
        return (
            f"no server answers at {self.place.url} ({error or type(error).__name__}): start one with "
            "`simpletuner server`, or set SIMPLETUNER_HOST and SIMPLETUNER_PORT"
        )


def read(reply: httpx.Response) -> Any:
    """The body of an answer; Refused for one that is a refusal."""
    try:
        body = reply.json()
    except ValueError:
        body = {}
    if reply.is_success:
        return body
    about = body if isinstance(body, dict) else {}
    raise Refused(reply.status_code, str(about.get("code", "")), _detail(reply, about), about)


def _detail(reply: httpx.Response, body: Mapping[str, Any]) -> str:
    detail = body.get("detail")
    if isinstance(detail, list):  # a body that does not fit: which field, and why
        detail = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in detail)
    if reply.status_code == 401:
        return f"{detail or 'Authentication required'} (this client sends SIMPLETUNER_API_KEY)"
    return str(detail or f"the server answered {reply.status_code}")


def _is_on(text: str | None) -> bool:
    return (text or "").strip().lower() in ("1", "true", "yes", "on")
