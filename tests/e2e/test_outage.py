"""A destination that is down for a minute: training does not wait for it, and everything is there in the end."""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from flowtuner.engine.events import METRIC, PUBLISH, read_events
from flowtuner.publishing.registry import open_destinations
from tests.e2e.machines import RUN, live
from tests.fakes.faultproxy import FaultProxy, Rule
from tests.fakes.s3.servers import KEYS
from tests.flows.conftest import FAKE_ENGINE, counted_options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("server")]

DOWN_S = 60.0
STEP_S = 0.05  # the counting engine's
STEPS = int(2.5 * DOWN_S / STEP_S)


class Outage(threading.Thread):
    """Takes a destination down once a step is reached, for a minute."""

    def __init__(self, proxy: FaultProxy, log: Path, at_step: int) -> None:
        super().__init__(daemon=True)
        self.began = self.ended = 0.0
        self._proxy, self._log, self._at_step = proxy, log, at_step
        self._wake = threading.Event()

    def run(self) -> None:
        while not (self._log.is_file() and any(is_step(event, self._at_step) for event in read_events(self._log))):
            self._wake.wait(0.5)
        self._proxy.rules = [Rule("cut", times=1_000_000)]
        self.began = time.time()
        self._wake.wait(DOWN_S)
        self._proxy.clear()
        self.ended = time.time()


def is_step(event: Any, step: int) -> bool:
    return bool(event.type == METRIC and event.data["step"] >= step)


def test_a_minute_without_the_destination_costs_no_training(tmp_path: Path, bucket: dict[str, Any]) -> None:
    with FaultProxy(int(urlsplit(bucket["endpoint_url"]).port or 0)) as proxy:
        entry = bucket | {"endpoint_url": proxy.url}
        options = counted_options(tmp_path, tmp_path) | {
            "publishing_config": [entry],
            "max_train_steps": STEPS,
            "checkpoint_step_interval": 100,
            "validation_step_interval": 0,
            "checkpoints_total_limit": 3,
        }
        log = tmp_path / "disk" / RUN / "logs/events.jsonl"
        outage = Outage(proxy, log, STEPS // 5)
        outage.start()
        environment = os.environ | {"PYTHONPATH": str(FAKE_ENGINE), "FAKE_ENGINE": "slow", "OMP_NUM_THREADS": "1"}
        live(options, tmp_path / "disk", None, environment)
        assert outage.ended, "the destination was away, and came back before the run was over"
        [destination] = open_destinations([bucket | KEYS])
        names = {unit.name for unit in destination.units(RUN)}
        assert names == {"release", *(f"checkpoint-{step}" for step in (STEPS - 200, STEPS - 100, STEPS))}

    events = list(read_events(log))
    steps = [event.time for event in events if event.type == METRIC]
    paces = [(later, later - earlier) for earlier, later in itertools.pairwise(steps)]
    during = [pace for at, pace in paces if outage.began <= at <= outage.ended]
    besides = [pace for at, pace in paces if not outage.began <= at <= outage.ended]
    ratio = statistics.median(during) / statistics.median(besides)
    caught_up = [event.time for event in events if event.type == PUBLISH and event.data["verified"]]
    first = min(at for at in caught_up if at > outage.ended)
    print(
        f"\na minute without the destination: steps take {ratio:.3f} of their time; the first checkpoint was verified "
        f"{first - outage.ended:.1f} s after it came back"
    )
    assert len(during) > 200
    assert not [at for at in caught_up if outage.began + 1 < at < outage.ended]
    assert ratio < 1.05
