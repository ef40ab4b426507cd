"""The engine as a process: what it answers, how it ends, and that it saves before it goes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowtuner.engine import checkpoints
from flowtuner.engine.events import CHECKPOINT, METRIC, EventLog, read_events
from flowtuner.engine.launch import Engine, wait_for_end
from flowtuner.engine.run import RunSpec
from flowtuner.errors import DataError, EngineDied
from flowtuner.options import load

FAKE_ENGINE = Path(__file__).parent.parent / "fakes" / "engine"

FLOW = """
import sys
from flowtuner.engine.events import EventLog
from flowtuner.engine.launch import Engine
from flowtuner.engine.run import RunSpec
from pathlib import Path

spec = RunSpec.load(Path(sys.argv[1]))
with EventLog(spec.event_log, "flow") as log:
    engine = Engine(spec, log)
    engine.cache_text()
    engine.cache_latents()
    engine.prepare()
    print(engine.pid, flush=True)
    engine.train(100_000)
"""


def spec_of(values: dict) -> RunSpec:
    loaded = load(values=values, environ={})
    return RunSpec("run", loaded, Path(values["output_dir"]))


class Interrupting(EventLog):
    """A log that sends the engine a signal once it trains."""

    def __init__(self, path, number):
        super().__init__(path, "run")
        self.number = number
        self.engine = None

    def append(self, type, data):
        if type == METRIC and self.number:
            os.kill(self.engine.pid, self.number)
            self.number = 0
        return super().append(type, data)


def test_faults_come_back_as_themselves_and_the_engine_serves_on(tiny_run, pictures):
    for picture in pictures.iterdir():
        picture.write_bytes(b"not a picture")
    spec = spec_of(tiny_run)
    with EventLog(spec.event_log, "run") as log, Engine(spec, log) as engine:
        with pytest.raises(DataError, match="none of the 16 pictures can be used"):
            engine.cache_text()
        first = engine.pid
        with pytest.raises(DataError):
            engine.cache_latents()
        assert engine.pid == first
    assert wait_for_end(first, timeout_s=5)


def test_sigterm_saves_the_step_under_way_and_ends_the_engine(tiny_run):
    spec = spec_of(tiny_run | {"max_train_steps": 100_000})
    with Interrupting(spec.event_log, signal.SIGTERM) as log, Engine(spec, log) as engine:
        log.engine = engine
        engine.cache_text()
        engine.cache_latents()
        engine.prepare()
        report = engine.train(100_000)
        pid = engine.pid or 0
        assert report.stopped
        saved = engine.close()
    assert saved.step == report.step
    assert checkpoints.find_faults(saved.path) == []
    assert not pid or wait_for_end(pid, timeout_s=5)


@pytest.mark.slow
def test_a_killed_flow_takes_its_engine_along_but_not_its_steps(tiny_run, tmp_path):
    spec = spec_of(tiny_run | {"max_train_steps": 100_000})
    spec.save(tmp_path / "spec.json")
    flow = subprocess.Popen(
        [sys.executable, "-c", FLOW, str(tmp_path / "spec.json")], stdout=subprocess.PIPE, text=True
    )
    pid = int(flow.stdout.readline())
    while not any(event.type == METRIC for event in read_events(spec.event_log)):
        assert flow.poll() is None
    flow.kill()
    flow.communicate()
    assert wait_for_end(pid, timeout_s=15)
    (newest,) = checkpoints.list_checkpoints(spec.output_dir)
    assert checkpoints.find_faults(newest) == []
    assert checkpoints.read_state(newest).global_step >= 1


@pytest.mark.slow
def test_an_engine_that_dies_says_how_and_what_its_log_holds(tiny_run):
    spec = spec_of(tiny_run | {"max_train_steps": 100_000})
    with Interrupting(spec.event_log, signal.SIGKILL) as log, Engine(spec, log) as engine:
        log.engine = engine
        engine.cache_text()
        engine.cache_latents()
        engine.prepare()
        with pytest.raises(EngineDied, match=r"killed by SIGKILL during train .*engine.log"):
            engine.train(100_000)
        assert engine.pid is None
    assert not any(event.type == CHECKPOINT for event in read_events(spec.event_log))


def test_an_engine_that_still_saves_is_not_cut_short(tiny_run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FAKE_ENGINE), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_ENGINE", "slow_save")
    spec = spec_of(tiny_run)
    with EventLog(spec.event_log, "run") as log:
        engine = Engine(spec, log, close_grace_s=1)
        engine.prepare()
        engine.train(3)
        assert engine.close().step == 3
    (newest,) = checkpoints.list_checkpoints(spec.output_dir)
    assert checkpoints.find_faults(newest) == []


def test_a_hail_of_signals_ends_in_one_saved_checkpoint(tiny_run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FAKE_ENGINE), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_ENGINE", "")
    spec = spec_of(tiny_run | {"max_train_steps": 10_000_000})
    with HailedEventLog(spec.event_log) as log, Engine(spec, log) as engine:
        log.engine = engine
        engine.prepare()
        assert engine.train(10_000_000).stopped
        pid = engine.pid
        assert pid is None or wait_for_end(pid, timeout_s=20)
    (newest,) = checkpoints.list_checkpoints(spec.output_dir)
    assert checkpoints.find_faults(newest) == []


class HailedEventLog(EventLog):
    """A log that sends the engine signals without a pause once it trains."""

    def __init__(self, path):
        super().__init__(path, "run")
        self.engine = None
        self._has_hailed = False

    def append(self, type, data):
        if type == METRIC and not self._has_hailed:
            self._has_hailed = True
            for _ in range(2000):
                os.kill(self.engine.pid, signal.SIGTERM)
        return super().append(type, data)
