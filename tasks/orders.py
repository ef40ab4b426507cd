"""What people ask of a run while it trains: found in Prefect, carried out between two steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectException

from flowtuner.engine.events import EventLog
from flowtuner.engine.orders import KEY, Order

MOST = 100


class Orders:
    """The orders that were found and are not carried out yet; each is taken once."""

    def __init__(self, events: EventLog, interrupt: Callable[[], None]) -> None:
        self._events = events
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._open: dict[str, Order] = {}
        self._seen: set[str] = set()

    def look(self, run_id: UUID) -> None:
        """Looks for new orders, and has training pause after its step if there are any; Prefect may be away."""
        try:
            with get_client(sync_client=True) as client:
                found = [Order.parse(each.key) for each in client.filter_flow_run_input(run_id, KEY, MOST, set())]
                new = [order for order in found if order and order.id not in self._seen]
                for order in new:
                    self._note(order, "accepted: it is done after the next step")
                    with self._lock:
                        self._seen.add(order.id)
                        self._open[order.id] = order
                    _delete(client, run_id, order)
        except (httpx.HTTPError, PrefectException):
            return
        if self._open:
            self._interrupt()

    def take(self) -> dict[str, list[Order]]:
        """What is asked for now, by kind; several who ask for the same are served at once."""
        with self._lock:
            taken, self._open = self._open, {}
        kinds: dict[str, list[Order]] = {}
        for order in taken.values():
            kinds.setdefault(order.kind, []).append(order)
        return kinds

    def done(self, orders: list[Order], what: str) -> None:
        """Tells that orders were carried out, or why not."""
        for order in orders:
            self._note(order, what)

    def _note(self, order: Order, what: str) -> None:
        about = {"severity": "info", "message": f"{order.kind} {what}", "order": order.kind, "order_id": order.id}
        self._events.append("notification", about)


def _delete(client: object, run_id: UUID, order: Order) -> None:
    try:
        client.delete_flow_run_input(run_id, order.key)  # type: ignore[attr-defined]
    except ObjectNotFound:
        return
