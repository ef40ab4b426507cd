"""The HTTP client that huggingface_hub shares in a process: with time limits while we use it, as it was afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """How long one request may take to begin, how long it may be silent, and how slow an upload may be."""

    connect_s: float
    silent_s: float
    slowest_bps: float = 64 << 10

    def enough_s(self, bytes: int) -> float:
        """How long an upload may take: the client of the xet protocol waits for some answers without end."""
        return 2 * self.silent_s + bytes / self.slowest_bps


class _Lease:
    """Counts who uses the client; the first one in sets the limits, the last one out takes them away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    @contextlib.contextmanager
    def taken(self, limits: Limits) -> Iterator[None]:
        with self._lock:
            if not self._users:
                _take(self._undo, limits)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._undo.close()


# The library has one client per process and no other door to its time limits, so there is one lease per process.
_LEASE = _Lease()


def patient_client(limits: Limits) -> contextlib.AbstractContextManager[None]:
    """Inside, no request of huggingface_hub hangs for ever, and it draws no progress bars."""
    return _LEASE.taken(limits)


def _take(undo: contextlib.ExitStack, limits: Limits) -> None:
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars

    previous: Callable[[], Any] = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)

    def make_client() -> Any:
        client = previous()
        client.timeout = httpx2.Timeout(limits.silent_s, connect=limits.connect_s)
        hooks = client.event_hooks
        client.event_hooks = hooks | {"request": [*hooks.get("request", ()), limit]}
        return client

    def limit(request: Any) -> None:
        # Some of the library's calls ask to wait without end.
        usual = httpx2.Timeout(limits.silent_s, connect=limits.connect_s).as_dict()
        given = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = usual | {name: value for name, value in given.items() if value is not None}

    set_client_factory(make_client)
    undo.callback(set_client_factory, previous)
    if not are_progress_bars_disabled():
        undo.enter_context(disable_progress_bars())
