"""The last step: every destination is asked once more what it holds, and the run's report is written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flowtuner import durable
from flowtuner.errors import PublishError
from tasks.outbox import Delivery
from tasks.retries import publish_task

REPORT_NAME = "logs/report.json"


@dataclass(frozen=True)
class Outcome:
    """What a run reached, apart from what was published."""

    run_id: str
    output_dir: Path
    step: int
    loss: float | None = None
    release: Path | None = None
    worst_case_loss_steps: int = 0
    report_name: str = REPORT_NAME
    scripts: tuple[Mapping[str, Any], ...] = ()
    destinations: tuple[Mapping[str, Any], ...] = ()


def confirm(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Asks every destination whether it still holds, whole, what was delivered to it."""
    return [_confirmed(delivery) for delivery in deliveries]


@task(task_run_name="report", cache_policy=NO_CACHE)
def report(outcome: Outcome, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """Writes what is where; raises PublishError when a required destination lacks something."""
    value = write_report(outcome, deliveries)
    missing = [delivery for delivery in deliveries if not delivery.is_verified]
    for delivery in missing:
        get_run_logger().warning("%s lacks %s: %s", delivery.destination.name, delivery.unit.name, delivery.error)
    if any(delivery.destination.required for delivery in missing):
        raise PublishError(_explain(outcome, [each for each in missing if each.destination.required]))
    return value


def write_report(
    outcome: Outcome, deliveries: Sequence[Delivery], ending: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Writes what a run reached and what stands where; `ending` says how it ended if not by itself."""
    value = {
        "run_id": outcome.run_id,
        "output_dir": str(outcome.output_dir),
        "status": "completed",
        "step": outcome.step,
        "loss": outcome.loss,
        "release": str(outcome.release) if outcome.release else None,
        "worst_case_loss_steps": outcome.worst_case_loss_steps,
        "published": [_row(delivery) for delivery in deliveries],
        "destinations": list(outcome.destinations),
        "scripts": list(outcome.scripts),
        **ending,
    }
    durable.write_json(outcome.output_dir / outcome.report_name, value)
    return value


@publish_task("verify {delivery.unit.name} in {delivery.destination.name}")
def verify(delivery: Delivery) -> list[str]:
    """Says what a destination lacks of a unit that was delivered to it."""
    assert delivery.manifest is not None
    return delivery.destination.verify(delivery.manifest)


def _confirmed(delivery: Delivery) -> Delivery:
    if not delivery.is_verified:
        return delivery
    damage = verify(delivery, return_state=True).result(raise_on_failure=False)
    if isinstance(damage, list) and not damage:
        return delivery
    return replace(delivery, error="; ".join(damage) if isinstance(damage, list) else str(damage))


def _row(delivery: Delivery) -> dict[str, Any]:
    result = delivery.result
    return {
        "destination": delivery.destination.name,
        "provider": delivery.destination.provider,
        "required": delivery.destination.required,
        "what": delivery.unit.name,
        "step": delivery.unit.step,
        "verified": delivery.is_verified,
        "uri": result.uri if result else None,
        "files": result.files if result else 0,
        "bytes": result.bytes if result else 0,
        "manifest_sha256": result.manifest_sha256 if result else None,
        "error": delivery.error,
    }


def _explain(outcome: Outcome, missing: Sequence[Delivery]) -> str:
    lacks = "\n".join(f"  - {each.destination.name} lacks {each.unit.name}: {each.error}" for each in missing)
    command = f"flowtuner publish {shlex.quote(str(outcome.output_dir))}"
    return (
        f"step {outcome.step} is reached and everything is in {outcome.output_dir}, but not everything is published:\n"
        f"{lacks}\nOnce the cause is removed: {command}"
    )
