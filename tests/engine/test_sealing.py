"""A checkpoint is made whole while training goes on: never seen before it is, never lost, and never another one."""

import os
import threading

import pytest

from flowtuner import durable
from flowtuner.durable import record_files
from flowtuner.engine import checkpoints
from flowtuner.errors import CheckpointError

FULL = OSError(28, "No space left on device")


class Gate:
    """Holds whoever hashes a checkpoint up; once opened with an error, that is what hashing ends with."""

    def __init__(self, monkeypatch):
        self._open = threading.Event()
        self._error = None
        monkeypatch.setattr(durable, "record_files", self._record)

    def open(self, error=None):
        self._error = error
        self._open.set()

    def _record(self, folder, *rest):
        assert self._open.wait(60)
        if self._error:
            raise self._error
        return record_files(folder, *rest)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


def names(run):
    return [folder.name for folder in checkpoints.list_checkpoints(run.output)]


def announced(run):
    return [data["step"] for type, data in run.events if type == "training.checkpoint"]


def test_training_goes_on_while_a_checkpoint_is_hashed_and_flushed(start, tiny_run, gate):
    run = start(tiny_run)
    run.session.train(2)
    saved = run.session.save_checkpoint(waits=False)
    assert run.session.train(4)["step"] == 4
    assert (names(run), announced(run)) == ([], [])
    gate.open()
    run.session.settle()
    assert (names(run), announced(run)) == (["checkpoint-2"], [2])
    assert checkpoints.find_faults(run.output / "checkpoint-2") == []
    assert str(run.output / "checkpoint-2") == saved["path"]

    awaited = start(tiny_run, "awaited")
    awaited.session.train(2)
    awaited.session.save_checkpoint()
    ours, theirs = (record_files(each.output / "checkpoint-2/transformer") for each in (run, awaited))
    assert ours == theirs


def test_the_next_checkpoint_and_the_release_wait_for_the_one_before(start, tiny_run):
    run = start(tiny_run | {"checkpoints_total_limit": 2})
    for step in (1, 2, 3):
        run.session.train(step)
        run.session.save_checkpoint(waits=False)
    run.session.save_release()
    assert names(run) == ["checkpoint-2", "checkpoint-3"]
    assert announced(run) == [1, 2, 3, 3]


def test_a_checkpoint_that_could_not_be_made_whole_is_told_and_ends_the_leg(start, tiny_run, gate):
    run = start(tiny_run)
    run.session.train(2)
    run.session.save_checkpoint(waits=False)
    gate.open(FULL)
    while not run.warnings():
        os.sched_yield()
    with pytest.raises(CheckpointError, match="No space left"):
        run.session.train(3)
    assert "checkpoint-2 could not be written: No space left" in run.warnings()[-1]
    assert sorted(path.name for path in run.output.glob("checkpoint*")) == []
    gate.open()
    run.session.close()
    assert names(run) == ["checkpoint-3"]


def test_leaving_waits_for_the_checkpoint_under_way_and_saves_nothing_twice(start, tiny_run, gate):
    run = start(tiny_run)
    run.session.train(2)
    run.session.save_checkpoint(waits=False)
    closing = threading.Thread(target=run.session.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    gate.open()
    closing.join()
    assert (names(run), announced(run)) == (["checkpoint-2"], [2])


def test_a_checkpoint_that_failed_is_made_up_for_on_leaving(start, tiny_run, gate):
    run = start(tiny_run)
    run.session.train(2)
    run.session.save_checkpoint(waits=False)
    gate.open(FULL)
    while run.session._sealer._work and not run.session._sealer._work.done():
        os.sched_yield()
    gate.open()
    run.session.close()
    assert names(run) == ["checkpoint-2"]
