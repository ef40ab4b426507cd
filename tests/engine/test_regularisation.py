"""Regularisation sets: their pictures hold an adapter to what the untrained model answers."""

import json
from pathlib import Path

import pytest
import torch

from flowtuner.engine.preflight import inspect_run
from flowtuner.options import load

torch.set_num_threads(1)

LORA = {"model_type": "lora", "lora_rank": 4, "max_train_steps": 8, "gradient_accumulation_steps": 1}


def add_regularisation(values: dict, *, alone: bool = False) -> dict:
    """Adds a second set over the same pictures, to be answered as before; `alone` leaves only that one."""
    path = Path(values["data_backend_config"])
    first, *others = json.loads(path.read_text())
    held = first | {"id": "held", "is_regularization_data": True}
    path.write_text(json.dumps([held, *others] if alone else [first, held, *others]))
    return values


def test_an_untrained_adapter_already_answers_like_the_untrained_model(start, tiny_run):
    run = start(add_regularisation(tiny_run | LORA, alone=True))
    run.session.train(2)
    assert list(run.losses().values()) == [0.0, 0.0]


def test_regularisation_batches_are_told_from_the_others(start, tiny_run):
    run = start(add_regularisation(tiny_run | LORA | {"caption_dropout_probability": 0}))
    feed = run.session._trainer.feed
    size = feed.sampler.micro_batches_per_epoch
    told = [feed.batch(n).is_regularisation for n in range(size)]
    assert told == [feed.sampler.batch(n)[0].sample.dataset_id == "held" for n in range(size)]
    assert sum(told) == size / 2


def test_a_resumed_run_with_regularisation_equals_an_uninterrupted_one(start, tiny_run):
    values = add_regularisation(tiny_run | LORA)
    straight = start(values, "straight")
    straight.session.train(8)
    run = start(values)
    run.session.train(3)
    run.session.save_checkpoint()
    again = start(values)
    again.session.train(8)
    assert again.release() == straight.release()


@pytest.mark.parametrize(
    ("options", "alone", "words"),
    [({"model_type": "full"}, False, "full fine-tune"), (LORA, True, "nothing new")],
)
def test_what_cannot_work_is_said_before_the_run(tiny_run, options, alone, words):
    findings = inspect_run(load(values=add_regularisation(tiny_run | options, alone=alone), environ={}))
    (finding,) = [finding for finding in findings if finding.check == "is_regularisation_data"]
    assert finding.level == "error" and words in str(finding)
