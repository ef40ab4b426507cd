"""What is said of a run whose process ended without a word."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flowtuner.engine.events import STATUS, EventLog, read_events
from flowtuner.engine.lock import OutputLock, wait_until_free
from tasks import aftermath
from tasks.units import find_newest


@pytest.fixture
def options(tiny_run: dict[str, Any]) -> dict[str, Any]:
    with EventLog(Path(tiny_run["output_dir"]) / "logs" / "events.jsonl", "run") as events:
        events.append(STATUS, {"status": "running"})
    return {"config": tiny_run}


def test_the_checkpoint_that_an_engine_still_saves_is_waited_for(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(options["config"]["output_dir"])
    lock = OutputLock(output, warn=str)
    asked: list[bool] = []

    def look(folder: Path) -> Any:
        asked.append(wait_until_free(folder, wait_s=0))
        return find_newest(folder)

    monkeypatch.setattr(aftermath, "find_newest", look)
    threading.Timer(0.5, lock.release).start()
    message = aftermath.tell_what_is_left("run", options)
    assert asked == [True]  # nobody looked before the engine was gone
    assert message
    *_, last = (event for event in read_events(output / "logs" / "events.jsonl") if event.type == STATUS)
    assert last.data["status"] == "failed" and last.data["message"] == message
    assert aftermath.tell_what_is_left("run", options) is None  # once


def test_an_engine_that_stays_is_not_waited_for_without_end(tmp_path: Path) -> None:
    assert wait_until_free(tmp_path)
    lock = OutputLock(tmp_path, warn=str)
    assert not wait_until_free(tmp_path, wait_s=0.1)
    lock.release()
    assert wait_until_free(tmp_path, wait_s=0)
    OutputLock(tmp_path, warn=str, wait_s=0).release()  # whoever waited holds nothing
