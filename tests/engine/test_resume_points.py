"""Where a run goes on from, what it takes along, and what it refuses to save: no course of training is mixed up."""

import io

import pytest

from flowtuner.engine import checkpoints
from flowtuner.errors import CheckpointError, EngineFault, FlowtunerError
from tests.engine.conftest import Run, weights_in

LORA = {"model_type": "lora", "lora_rank": 4}


def save_at(run: Run, *steps: int) -> None:
    for step in steps:
        run.session.train(step)
        run.session.save_checkpoint()


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.output.glob("checkpoint-*"))


def test_going_on_from_an_older_checkpoint_sets_the_newer_ones_aside(start, tiny_run):
    save_at(start(tiny_run), 2, 4, 6)
    back = start(tiny_run | {"resume_from_checkpoint": "checkpoint-2", "checkpoints_total_limit": 2})
    assert back.position["step"] == 2
    assert names(back) == ["checkpoint-2", "checkpoint-4-superseded", "checkpoint-6-superseded"]
    assert "checkpoint-6-superseded" in back.warnings()[-1]
    save_at(back, 3)
    again = start(tiny_run)  # `latest` is the newest of this course, not of the one left behind
    assert again.position["step"] == 3
    save_at(again, 4)
    start(tiny_run | {"resume_from_checkpoint": "checkpoint-3"})
    assert {"checkpoint-4-superseded", "checkpoint-4-superseded-2"} <= set(names(again))


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_does_not_push_out_a_whole_one(start, tiny_run):
    values = tiny_run | {"checkpoints_total_limit": 2}
    run = start(values)
    save_at(run, 2, 4)
    (run.output / "checkpoint-4" / "optimizer.bin").write_bytes(b"cut off")
    second = start(values)
    save_at(second, 3)
    assert names(second) == ["checkpoint-2", "checkpoint-3", "checkpoint-4-superseded"]


def test_what_is_not_published_yet_is_not_rotated_away(start, tiny_run, monkeypatch):
    run = start(tiny_run | {"checkpoints_total_limit": 1})
    for step, held in ((2, []), (3, ["checkpoint-2"]), (4, ["checkpoint-2"])):
        run.session.train(step)
        run.session.save_checkpoint(held)
    assert names(run) == ["checkpoint-2", "checkpoint-4"]
    monkeypatch.setattr(checkpoints, "MARGIN_BYTES", 1 << 60)  # a disk in need
    run.session.train(5)
    run.session.close()
    assert names(run) == ["checkpoint-5"]
    assert "checkpoint-2 is removed unpublished" in run.warnings()[-1]


def test_weights_ruined_by_a_step_are_never_saved(start, tiny_run):
    values = tiny_run | {"learning_rate": 1e30, "max_grad_norm": 0, "lr_scheduler": "constant"}
    run = start(values)
    with pytest.raises(EngineFault, match="the loss became"):
        run.session.train(6)
    with pytest.raises(EngineFault, match="the loss became"):
        run.session.close()
    assert names(run) == []


def test_weights_that_are_no_numbers_are_not_saved_even_while_the_loss_is_one(start, tiny_run):
    run = start(tiny_run)
    run.session.train(2)
    next(iter(run.session._trainer.parameters)).data.fill_(float("nan"))
    for save in (run.session.save_checkpoint, run.session.save_release, run.session.close):
        with pytest.raises(EngineFault, match="weights hold infinite or undefined numbers after step 2"):
            save()
    assert names(run) == []


@pytest.mark.slow
def test_a_step_cut_short_counts_for_nothing_and_is_not_saved(start, tiny_run, monkeypatch):
    values = tiny_run | {"gradient_accumulation_steps": 3}
    straight = start(values, "straight")
    straight.session.train(4)
    run = start(values, "cut")
    run.session.train(2)
    trainer = run.session._trainer
    with monkeypatch.context() as patch:  # the memory ends in the second micro batch of the third step
        patch.setattr(trainer.feed, "batch", _fail_on(7, trainer.feed.batch))
        with pytest.raises(MemoryError):
            run.session.train(4)
    assert (trainer.step, trainer.micro_batches) == (2, 6)
    run.session.close()
    assert names(run) == ["checkpoint-2"]
    second = start(values, "cut")
    second.session.train(4)
    assert second.release() == straight.release()


@pytest.mark.slow
def test_half_an_update_is_not_saved(start, tiny_run, monkeypatch):
    run = start(tiny_run)
    run.session.train(2)
    monkeypatch.setattr(run.session._trainer.optimizer, "step", _raise_memory_error)
    with pytest.raises(MemoryError):
        run.session.train(3)
    with pytest.raises(EngineFault, match="cut short"):
        run.session.close()
    assert names(run) == []


def test_a_resume_that_fails_leaves_its_checkpoint_as_it_is(start, tiny_run, monkeypatch):
    run = start(tiny_run)
    save_at(run, 2)
    before = sorted((run.output / "checkpoint-2").stat().st_ino for _ in "x")
    run.die()
    monkeypatch.setattr("flowtuner.engine.assembly.restore_states", _raise_memory_error)
    second = Run(tiny_run, "run")
    with pytest.raises(MemoryError):
        second.open()
    second.session.close()
    assert sorted((run.output / "checkpoint-2").stat().st_ino for _ in "x") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"use_dora": True}, {}, "use_dora was True, now False"),
        ({}, {"lora_alpha": 8}, "lora_alpha was 4, now 8"),
        ({}, {"lora_target_modules": ["to_q"]}, "also holds"),
        ({}, {"use_ema": True}, "has no EMA weights"),
    ],
)
def test_another_adapter_is_refused_in_words(start, tiny_run, before, now, words):
    save_at(start(tiny_run | LORA | before), 1)
    with pytest.raises(CheckpointError, match=words):
        start(tiny_run | LORA | now)


@pytest.mark.slow
def test_an_alpha_that_is_spelled_out_is_the_same_alpha(start, tiny_run):
    save_at(start(tiny_run | LORA), 1)
    assert start(tiny_run | LORA | {"lora_alpha": 4}).position["step"] == 1


@pytest.mark.slow
def test_options_that_a_resume_overrules_or_hardly_means_are_told(start, tiny_run):
    save_at(start(tiny_run), 1)
    changed = tiny_run | {"seed": 7, "optimizer_config": "weight_decay=0.5", "learning_rate": 1e-4}
    told = " ".join(start(changed).warnings())
    assert "seed was 1337, now 7" in told
    assert "optimizer_config was None, now 'weight_decay=0.5'; the old one stays in force" in told
    assert "learning_rate" not in told  # a new rate is meant and takes effect
    assert not any("resuming from" in warning for warning in start(tiny_run).warnings())


@pytest.mark.slow
def test_a_finished_run_has_nothing_to_do_and_a_longer_one_goes_on(start, tiny_run):
    first = start(tiny_run)
    save_at(first, 6)
    weights = first.release()
    same = start(tiny_run)
    assert same.session.train(6)["stopped"] is False
    assert same.release() == weights
    shorter = start(tiny_run | {"max_train_steps": 3})
    assert "beyond the 3 steps" in shorter.warnings()[-1]
    assert shorter.release() == weights
    longer = start(tiny_run | {"max_train_steps": 8})
    assert longer.position == {"step": 6, "total_steps": 8, "steps_per_epoch": 8.0}
    longer.session.train(8)
    assert longer.release() != weights


@pytest.mark.slow
def test_an_error_while_saving_is_told_with_what_to_do(start, tiny_run, monkeypatch):
    run = start(tiny_run)
    save_at(run, 2)
    run.session.train(3)
    monkeypatch.setattr("torch.save", _raise_as_a_full_disk_does)
    with pytest.raises(
        CheckpointError,
        match=r"checkpoint-3 could not be written: the disk did not take all of it .*MiB are free.*is whole",
    ) as caught:
        run.session.save_checkpoint()
    assert isinstance(caught.value, FlowtunerError)
    assert names(run) == ["checkpoint-2"]
    assert checkpoints.find_faults(run.output / "checkpoint-2") == []


def _fail_on(number, batch):
    def fail_once(asked):
        if asked == number:
            raise MemoryError("out of memory")
        return batch(asked)

    return fail_once


def _raise_memory_error(*values, **named):
    raise MemoryError("out of memory")


def _raise_as_a_full_disk_does(*values, **named):
    if any(isinstance(value, io.BytesIO) for value in values):  # memory has room
        return
    raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")


def test_a_release_that_cannot_be_written_leaves_the_earlier_one(start, tiny_run, monkeypatch):
    run = start(tiny_run | LORA)
    run.session.train(2)
    weights = run.release()
    run.session.train(4)
    monkeypatch.setattr("flowtuner.engine.families.parts.weights._sort_metadata", _raise_as_a_full_disk_does)
    with pytest.raises(CheckpointError, match="the release could not be written"):
        run.session.save_release()
    assert weights_in(run.output) == weights
    assert not list(run.output.glob("*-tmp"))
