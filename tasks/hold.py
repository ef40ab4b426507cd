"""Staying on a machine that is thrown away while it holds what no destination has yet."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prefect.logging import get_run_logger

from flowtuner.publishing.snapshot import Unit
from tasks.outbox import Delivery, Outbox
from tasks.report import confirm

PAUSE_S = 30.0


def hold(outbox: Outbox, units: Sequence[Unit], deliveries: list[Delivery], seconds: float) -> list[Delivery]:
    """Sends again what required destinations lack, until they have it or the time is over.

    Credentials in blocks are read anew each time, so a token that is replaced meanwhile saves the run.
    """
    end = time.monotonic() + seconds
    told: set[str] = set()
    while (lacking := _lacking(deliveries)) and (left_s := end - time.monotonic()) > 0:
        news = [text for text in lacking if text not in told]
        told.update(news)
        if news:
            _tell(outbox, news, left_s)
        time.sleep(min(PAUSE_S, left_s))
        deliveries = confirm(outbox.settle(units, max(0.0, end - time.monotonic())))
    return deliveries


def _lacking(deliveries: Sequence[Delivery]) -> list[str]:
    missing = (each for each in deliveries if not each.is_verified and each.destination.required)
    return [f"{each.destination.name} lacks {each.unit.name}: {each.error}" for each in missing]


def _tell(outbox: Outbox, lacking: Sequence[str], left_s: float) -> None:
    message = (
        f"{'; '.join(lacking)}. This machine is thrown away, so the run stays for up to {left_s / 60:.0f} minutes and "
        f"tries again every {PAUSE_S:g} s: put the cause right, or stop the run."
    )
    get_run_logger().error(message)
    outbox.events.notify("error", message)
