"""What people ask of a run while it trains: a checkpoint or a validation now, and the same numbers as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.train import train
from flowtuner.engine.events import CHECKPOINT, METRIC, NOTIFICATION, VALIDATION, read_events
from flowtuner.jobs.orders import send_order
from tests.flows.test_stopping import act_at_step, log_of

pytestmark = pytest.mark.usefixtures("prefect_api")
STEPS = 160  # of fifty milliseconds: the run looks every two seconds


def test_orders_are_carried_out_between_two_steps(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ENGINE", "slow")
    values = options | {"max_train_steps": STEPS, "checkpoint_step_interval": STEPS, "validation_step_interval": STEPS}
    log = log_of(values)

    def ask(run_id: str) -> None:
        for kind in ("checkpoint", "checkpoint", "validate"):
            send_order(run_id, kind)

    asking = act_at_step(3, log, ask)
    result = train(config=values)
    asking.join(timeout=10)

    assert isinstance(result, dict) and result["step"] == STEPS
    events = list(read_events(log))
    saved = [event.data["step"] for event in events if event.type == CHECKPOINT and not event.data["is_final"]]
    assert len(saved) == 2 and 3 < saved[0] < STEPS and saved[1] == STEPS  # two who ask at once are served once
    drawn = [event.data["step"] for event in events if event.type == VALIDATION]
    assert len(drawn) == 2 and saved[0] <= drawn[0] < STEPS
    said = [event.data for event in events if event.type == NOTIFICATION and "order_id" in event.data]
    assert sum("accepted" in each["message"] for each in said) == 3
    assert sum("done" in each["message"] and "accepted" not in each["message"] for each in said) == 3
    steps = [event.data["step"] for event in events if event.type == METRIC]
    assert steps == list(range(1, STEPS + 1))
    assert (Path(options["publishing_config"][0]["path"]) / "my run" / f"checkpoint-{saved[0]}").is_dir()
