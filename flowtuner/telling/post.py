"""One attempt to hand a message over."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from flowtuner.telling.addresses import Refused, Rule, find_address
from flowtuner.telling.hooks import Hook

TIMEOUT_S = 10.0
READ_BYTES = 1 << 16
WORTH_ANOTHER_TRY = (408, 425, 429)


@dataclass(frozen=True)
class Answer:
    """What became of an attempt; `fault` says no more than a status, for the receiver may be anybody's."""

    fault: str | None = None
    may_work_later: bool = False
    wait_s: float | None = None


def post(hook: Hook, body: bytes, headers: Mapping[str, str], rule: Rule) -> Answer:
    """Sends once, to an address that is allowed, and follows no redirection."""
    parts = urlsplit(hook.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with _open(hook, parts.scheme, find_address(host, port, rule), host, port) as pool:
            reply = pool.urlopen(
                "POST",
                target,
                body=body,
                headers={**headers, "Host": parts.netloc.rpartition("@")[2]},
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(total=TIMEOUT_S),
            )
            reply.read(READ_BYTES)
            reply.close()
    except Refused as error:
        return Answer(str(error))
    except (HTTPError, OSError, ssl.SSLError) as error:
        return Answer(type(error).__name__, may_work_later=True)
    return _judge(reply.status, reply.headers.get("Retry-After"))


def _open(hook: Hook, scheme: str, address: str, host: str, port: int) -> Any:
    if scheme == "http":
        return urllib3.HTTPConnectionPool(address, port)
    if not hook.verifies:
        return urllib3.HTTPSConnectionPool(address, port, cert_reqs=ssl.CERT_NONE, server_hostname=host)
    return urllib3.HTTPSConnectionPool(address, port, server_hostname=host, assert_hostname=host)


def _judge(status: int, retry_after: str | None) -> Answer:
    if 200 <= status < 300:
        return Answer()
    is_temporary = status >= 500 or status in WORTH_ANOTHER_TRY
    wait_s = float(retry_after) if retry_after and retry_after.isdigit() else None
    return Answer(f"status {status}", is_temporary, wait_s)
