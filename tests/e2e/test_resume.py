"""A resumed run equals an uninterrupted one, byte for byte, however it was interrupted."""

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from flowtuner.durable import sha256_of
from flowtuner.engine.events import METRIC, EventLog, read_events
from flowtuner.engine.launch import Engine
from flowtuner.engine.plan import legs
from flowtuner.engine.run import RunSpec
from flowtuner.engine.session import Session
from flowtuner.errors import EngineDied
from flowtuner.options import load

KILL_POINTS = 20


def train_through(values: dict, name: str, on_metric=lambda engine, step: None) -> Path:
    """Trains a run to its end as the flow does; `on_metric` may kill the engine, which is then restarted."""
    output = Path(values["output_dir"]).with_name(name)
    loaded = load(values=values | {"output_dir": str(output)}, environ={})
    spec = RunSpec(name, loaded, output)
    with EventLog(spec.event_log, name) as log, Engine(spec, _Spy(log, lambda step: on_metric(engine, step))) as engine:
        engine.cache_text()
        engine.cache_latents()
        position = engine.prepare()
        for leg in legs(loaded.config, position.step, position.total_steps, position.steps_per_epoch):
            _reach(engine, leg)
        return engine.save_release().path


def train_straight(values: dict, name: str) -> tuple[Path, dict[int, float]]:
    """Trains the same run in this process, in one go; answers with its folder and its losses."""
    output = Path(values["output_dir"]).with_name(name)
    losses = {}

    def emit(type, data):
        if type == METRIC:
            losses[data["step"]] = data["loss"]

    loaded = load(values=values | {"output_dir": str(output)}, environ={})
    session = Session(RunSpec(name, loaded, output), emit, threading.Event())
    session.cache_text()
    session.cache_latents()
    session.train(session.prepare(None)["total_steps"])
    session.save_release()
    session.close()
    return output, losses


def _reach(engine: Engine, leg) -> None:
    while True:
        try:
            engine.train(leg.until)
            if leg.saves:
                engine.save_checkpoint()
            return
        except EngineDied:
            continue


class _Spy:
    """An event log that tells somebody about every step."""

    def __init__(self, log: EventLog, on_step):
        self._log = log
        self._on_step = on_step

    def append(self, type, data):
        event = self._log.append(type, data)
        if type == METRIC:
            self._on_step(data["step"])
        return event


def weights_of(output: Path) -> dict[str, str]:
    files = sorted(output.glob("pipeline/transformer/*.safetensors")) + sorted(output.glob("*.safetensors"))
    assert files, f"no weights in {output}"
    return {path.name: sha256_of(path) for path in files}


def losses_of(output: Path) -> dict[int, float]:
    return {
        event.data["step"]: event.data["loss"]
        for event in read_events(output / "logs" / "events.jsonl")
        if event.type == METRIC
    }


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_killed_run_ends_with_the_same_bytes(tiny_run):
    values = tiny_run | {"gradient_accumulation_steps": 2, "use_ema": True, "caption_dropout_probability": 0.3}
    straight, losses = train_straight(values, "straight")
    victims = []

    def kill_once(engine, step):
        if not victims:
            victims.append(engine.pid)
            kill(engine.pid)

    killed = train_through(values, "killed", kill_once)
    assert victims
    assert weights_of(killed) == weights_of(straight)
    assert losses_of(killed) == losses


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_random_kill_points_change_nothing(tiny_run):
    values = tiny_run | {
        "max_train_steps": 24,
        "checkpoint_step_interval": 4,
        "gradient_accumulation_steps": 3,
        "caption_dropout_probability": 0.3,
        "use_ema": True,
    }
    expected = weights_of(train_through(values, "straight"))
    chooser = random.Random(20)
    for number in range(KILL_POINTS):
        points = sorted(chooser.sample(range(1, 25), 2))  # twice in one run: a resumed run is resumed again

        def kill_at(engine, step, points=points):
            if points and step >= points[0]:
                points.pop(0)
                kill(engine.pid)

        assert weights_of(train_through(values, f"killed-{number}", kill_at)) == expected, points
