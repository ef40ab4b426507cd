"""Asks a run under way for a validation or a checkpoint, through Prefect, on whichever machine it runs."""

from __future__ import annotations

import secrets
from uuid import UUID

from flowtuner.engine.orders import Order
from flowtuner.jobs.dispatch import prefect_client


def send_order(flow_run_id: str, kind: str, order_id: str | None = None) -> str:
    """Leaves an order (`validate` or `checkpoint`) for a flow run, and answers with the order's id."""
    order = Order(kind, order_id or secrets.token_hex(4))
    with prefect_client() as client:
        client.create_flow_run_input(UUID(flow_run_id), order.key, f'"{order.kind}"')
    return order.id
