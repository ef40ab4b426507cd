"""Several processes train one model: the same curve as one with their batches together, exact resume, one writer."""

import os
import signal
import time

import pytest

from flowtuner.durable import sha256_of
from flowtuner.engine.events import EventLog, read_events
from flowtuner.engine.launch import Engine
from flowtuner.engine.ranks import Ranks, Share
from flowtuner.engine.run import RunSpec
from flowtuner.errors import EngineDied
from flowtuner.options import load

LORA = {"model_type": "lora", "lora_rank": 4, "lora_dropout": 0.0, "caption_dropout_probability": 0.3}
DROPPING = LORA | {"lora_dropout": 0.2, "use_ema": True}


@pytest.fixture
def train(tmp_path, tiny_run):
    """Trains in a run's own engine processes; answers with its losses by step and the hash of its weights."""

    def train_one(name, steps, values, *, until=None):
        output = tmp_path / name
        loaded = load(values=tiny_run | {"torch_num_threads": 1} | values | {"output_dir": str(output)}, environ={})
        spec = RunSpec(name, loaded, output)
        with EventLog(spec.event_log, name) as log, Engine(spec, log) as engine:
            engine.cache_text()
            engine.cache_latents()
            position = engine.prepare()
            engine.train(until or steps)
            engine.save_checkpoint()
            if until is None:
                engine.save_release()
        events = list(read_events(spec.event_log))
        losses = {event.data["step"]: event.data["loss"] for event in events if event.type == "training.metric"}
        weights = sorted(output.glob("checkpoint-*/pytorch_lora_weights.safetensors"))[-1]
        return losses, sha256_of(weights), position.step

    return train_one


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_as_one_with_twice_the_batch(train):
    alone, _, _ = train("alone", 4, LORA | {"train_batch_size": 4})
    together, _, _ = train("together", 4, LORA | {"train_batch_size": 2, "num_processes": 2})
    assert together == pytest.approx(alone, rel=1e-4)
    assert len(together) == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("values", [LORA, DROPPING, LORA | {"gradient_accumulation_steps": 2}])
def test_two_processes_resume_to_the_byte(train, values):
    two = values | {"num_processes": 2}
    straight, whole, _ = train("straight", 4, two)
    train("resumed", 4, two, until=2)
    second, resumed, began = train("resumed", 4, two)
    assert began == 2
    assert resumed == whole
    assert {step: second[step] for step in (3, 4)} == {step: straight[step] for step in (3, 4)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_in_another_number_of_processes_with_the_same_batch(train):
    straight, _, _ = train("straight", 4, LORA | {"train_batch_size": 4})
    train("moved", 4, LORA | {"train_batch_size": 4}, until=2)
    moved, _, began = train("moved", 4, LORA | {"train_batch_size": 2, "num_processes": 2})
    assert began == 2
    assert moved == pytest.approx(straight, rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_peer_that_dies_ends_the_engine_and_the_run_goes_on_from_its_checkpoint(tmp_path, tiny_run):
    values = tiny_run | LORA | {"torch_num_threads": 1, "num_processes": 2, "max_train_steps": 500}
    spec = RunSpec("killed", load(values=values, environ={}), tmp_path / "output")
    with EventLog(spec.event_log, "killed") as log, Engine(spec, log) as engine:
        engine.cache_text()
        engine.cache_latents()
        engine.prepare()
        engine.train(2)
        engine.save_checkpoint()
        (peer,) = children_of(engine.pid)
        os.kill(peer, signal.SIGKILL)
        with pytest.raises(EngineDied, match="rank 1"):
            engine.train(400)
        assert engine.train(4).step == 4
        (peer,) = children_of(engine.pid)
    assert is_gone(peer)


def test_shares_cover_a_batch_and_weigh_what_they_hold():
    for world in (1, 2, 3, 5):
        for total in (1, 2, 3, 7, 10):
            shares = [Ranks(rank, world).share(total) for rank in range(world)]
            counted = [place for share in shares if share.weight for place in range(share.start, share.stop)]
            assert counted == list(range(total))
            assert sum(share.weight for share in shares) == pytest.approx(world)
            assert all(share.stop > share.start for share in shares)
    assert Ranks().share(4) == Share.whole(4)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def is_gone(pid, patience_s=20.0):
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if not os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.05)
    return False
