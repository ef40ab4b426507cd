"""What a webhook is told: in order, once where the receiver answers, and nothing to addresses that are not allowed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowtuner.engine import events
from flowtuner.engine.events import EventLog, last_seq
from flowtuner.errors import ConfigError
from flowtuner.options import load
from flowtuner.telling import courier
from flowtuner.telling.addresses import Rule
from flowtuner.telling.courier import Courier
from flowtuner.telling.hooks import Hook, find_faults
from tests.fakes.receiver import Delivery, Receiver, receiving

HERE = Rule(("127.0.0.1",))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "logs" / "events.jsonl", "run-1") as log:
        yield log


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(courier, "POLL_S", 0.02)


class Told:
    """A courier at work."""

    def __init__(self, log: EventLog, hook: Hook, rule: Rule = HERE, interval_s: float = 0.0) -> None:
        self.courier = Courier(hook, log, log.path.parent / "webhooks", "0badcafe", "kites", interval_s, rule)
        self.courier.open(last_seq(log.path))
        self.thread = threading.Thread(target=self.courier.run, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.courier.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def raw(receiver: Receiver, **more: Any) -> Hook:
    return Hook.of({"webhook_type": "raw", "callback_url": f"{receiver.address}/hook?a=b"} | more)


def say_steps(log: EventLog, first: int, last: int) -> None:
    for step in range(first, last + 1):
        log.notify("info", f"step {step}")


def messages(deliveries: list[Delivery]) -> list[str]:
    return [json.loads(each.body)["message"] for each in deliveries]


def test_events_come_in_order_and_signed(log: EventLog) -> None:
    with receiving() as receiver:
        told = Told(log, raw(receiver, auth_token="st_x", signing_secret="hush", message_prefix="[lab]"))
        say_steps(log, 1, 5)
        told.end()
    assert messages(receiver.deliveries) == [f"step {step}" for step in range(1, 6)]
    first = receiver.deliveries[0]
    assert (first.path, first.headers["x-api-key"]) == ("/hook?a=b", "st_x")
    event = json.loads(first.body)
    assert {"type", "severity", "title", "message", "job_id", "timestamp", "data", "images"} <= set(event)
    assert (event["type"], event["job_id"], event["title"]) == ("notification", "0badcafe", "[lab] step 1")
    signed = f"{first.headers['webhook-id']}.{first.headers['webhook-timestamp']}.".encode() + first.body
    proof = base64.b64encode(hmac.new(b"hush", signed, hashlib.sha256).digest()).decode()
    assert first.headers["webhook-signature"] == f"v1,{proof}"
    assert abs(int(first.headers["webhook-timestamp"]) - time.time()) < 60


def test_a_receiver_that_stumbles_is_told_again_with_the_same_id(log: EventLog) -> None:
    with receiving(lambda before: 503 if len(before) in (1, 2) else 200) as receiver:
        told = Told(log, raw(receiver))
        say_steps(log, 1, 3)
        deadline = time.monotonic() + 10
        while len(receiver.accepted) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        told.end()
    steps = [each for each in receiver.accepted if "step" in messages([each])[0]]
    assert messages(steps) == ["step 1", "step 2", "step 3"]
    tries = [each for each in receiver.deliveries if each.headers["webhook-id"] == steps[1].headers["webhook-id"]]
    assert [each.status for each in tries] == [503, 503, 200]
    assert len({each.body for each in tries}) == 1


def test_what_was_not_told_is_told_by_the_run_that_goes_on(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(courier, "LAST_WORDS_S", 0.3)
    down = {"is": False}
    with receiving(lambda before: 503 if down["is"] else 200) as receiver:
        first = Told(log, raw(receiver))
        say_steps(log, 1, 2)
        while len(receiver.accepted) < 2:
            time.sleep(0.01)
        down["is"] = True
        say_steps(log, 3, 4)
        first.end()
        assert "events were not told before the run ended" in log.path.read_text()
        down["is"] = False
        with EventLog(log.path, "run-2") as resumed:
            second = Told(resumed, raw(receiver))
            say_steps(resumed, 5, 5)
            second.end()
    steps = [text for text in messages(receiver.accepted) if text.startswith("step")]
    assert steps == [f"step {step}" for step in range(1, 6)]


def test_a_refusal_is_no_reason_to_ask_again(log: EventLog) -> None:
    with receiving(lambda before: 410) as receiver:
        told = Told(log, raw(receiver))
        say_steps(log, 1, 2)
        told.end()
    ids = [each.headers["webhook-id"] for each in receiver.deliveries]
    assert len(ids) == len(set(ids))
    assert log.path.read_text().count("was not told everything: status 410") == 1


def test_a_redirection_is_not_followed(log: EventLog) -> None:
    with receiving() as elsewhere, receiving(lambda before: 307) as receiver:
        receiver.headers["Location"] = elsewhere.address
        told = Told(log, raw(receiver))
        say_steps(log, 1, 1)
        told.end()
    assert elsewhere.deliveries == []


def test_every_step_is_for_those_who_debug_and_progress_comes_as_often_as_asked(log: EventLog) -> None:
    metric = {"step": 1, "loss": 0.5}
    progress = {
        "step": 1,
        "total_steps": 9,
        "epoch": 1,
        "loss": 0.5,
        "learning_rate": 1.0,
        "eta_s": 1,
        "steps_per_s": 1,
    }
    with receiving() as quiet, receiving() as curious:
        couriers = [
            Told(log, raw(quiet), interval_s=60),
            Told(log, raw(curious, log_level="debug"), interval_s=0),
        ]
        for _ in range(5):
            log.append(events.METRIC, metric)
            log.append(events.PROGRESS, progress)
            time.sleep(0.1)
        for told in couriers:
            told.end()
    assert [json.loads(each.body)["type"] for each in quiet.deliveries] == ["training.progress"]
    kinds = [json.loads(each.body)["type"] for each in curious.deliveries]
    assert kinds.count("training.progress") == kinds.count("training.metric") == 5
    assert json.loads(quiet.deliveries[0].body)["progress"]["total"] == 9


def test_discord_gets_a_line_and_the_pictures(log: EventLog, tmp_path: Path) -> None:
    picture = tmp_path / "step_1_a_kite.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    with receiving() as receiver:
        told = Told(log, Hook.of({"webhook_type": "discord", "webhook_url": receiver.address}))
        log.append(events.VALIDATION, {"step": 1, "images": [str(picture)], "prompts": ["a kite"]})
        told.end()
    (delivery,) = receiver.deliveries
    assert delivery.headers["content-type"].startswith("multipart/form-data")
    assert b"`(kites)` Validation (step 1)\na kite" in delivery.body
    assert b'name="file0"; filename="step_1_a_kite.png"' in delivery.body
    assert picture.read_bytes() in delivery.body


PRIVATE = [
    "http://127.0.0.1:8001/x",
    "http://10.1.2.3/",
    "http://169.254.169.254/latest",
    "http://[::1]/",
    "http://localhost/",
]


@pytest.mark.parametrize("url", [*PRIVATE, "http://[::ffff:10.0.0.1]/", "http://0.0.0.0/", "http://2130706433/"])
def test_an_address_in_a_private_network_is_refused(url: str) -> None:
    (fault,) = find_faults([{"callback_url": url}], Rule())
    assert fault.option == "webhook_config[1].callback_url"
    assert "private network" in fault.problem and "FLOWTUNER_WEBHOOK_ALLOW" in fault.suggestion


@pytest.mark.parametrize("allowed", ["*", "127.0.0.0/8", "127.0.0.1", "10.0.0.0/8, 127.*"])
def test_whoever_runs_the_machine_may_allow_it(allowed: str) -> None:
    rule = Rule.from_environment({"FLOWTUNER_WEBHOOK_ALLOW": allowed})
    assert list(find_faults([{"callback_url": "http://127.0.0.1/"}], rule)) == []


def test_nothing_is_sent_to_an_address_that_is_not_allowed(log: EventLog) -> None:
    with receiving() as receiver:
        told = Told(log, raw(receiver), rule=Rule())
        say_steps(log, 1, 1)
        told.end()
    assert receiver.deliveries == []
    assert "private network" in log.path.read_text()


def test_mistakes_in_an_entry_are_named(tiny_run: dict[str, Any]) -> None:
    entry = {"webhook_type": "RAW", "callback_url": "8.8.8.8", "log_level": "loud", "colour": "red"}
    with pytest.raises(ConfigError) as caught:
        load(values=tiny_run | {"webhook_config": [entry]})
    wrong = {fault.option.partition(".")[2] for fault in caught.value.faults}
    assert wrong == {"callback_url", "log_level", "colour"}


def test_a_secret_that_is_no_key_is_found_before_anything_is_sent() -> None:
    (fault,) = find_faults([{"callback_url": "http://8.8.8.8", "signing_secret": "whsec_not base64!"}], Rule())
    assert fault.option == "webhook_config[1].signing_secret"
