"""A run's live state: what a session trains, saves, resumes and refuses (numbers compared with numbers)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flowtuner.engine import checkpoints
from flowtuner.errors import CheckpointError, EngineFault

torch.set_num_threads(1)

MODES = {
    "full": {},
    "full, everything on": {
        "use_ema": True,
        "gradient_accumulation_steps": 3,
        "gradient_checkpointing": True,
        "caption_dropout_probability": 0.3,
        "snr_gamma": 5.0,
        "grad_clip_method": "norm",
    },
    "full, bf16 with stochastic rounding": {"optimizer": "adamw_bf16", "mixed_precision": "bf16"},
    "full, bf16 with Kahan summation": {"optimizer": "optimi-lion", "mixed_precision": "bf16", "learning_rate": 1e-4},
    "full, schedule-free with EMA": {"optimizer": "adamw_schedulefree", "use_ema": True},
    "lora": {"model_type": "lora", "lora_rank": 4, "lora_dropout": 0.2},
    "lora, prodigy": {"model_type": "lora", "lora_rank": 4, "optimizer": "prodigy", "learning_rate": 1.0},
    "lora, bf16 base": {"model_type": "lora", "lora_rank": 4, "mixed_precision": "bf16", "use_ema": True},
}
SLOW_MODES = ("full", "full, bf16 with Kahan summation", "lora, prodigy", "lora, bf16 base")

FLUX_MODES = [
    pytest.param({"flow_schedule_shift": 1.7, "gradient_checkpointing": True}, id="full", marks=pytest.mark.slow),
    pytest.param(
        {"model_type": "lora", "lora_rank": 4, "lora_dropout": 0.2, "flux_guidance_mode": "random-range"}, id="lora"
    ),
]


@pytest.mark.parametrize(
    "mode",
    [pytest.param(mode, id=name, marks=[pytest.mark.slow] * (name in SLOW_MODES)) for name, mode in MODES.items()],
)
def test_resumed_equals_uninterrupted_to_the_byte(start, tiny_run, mode):
    check_resume(start, tiny_run | mode)


@pytest.mark.parametrize("mode", FLUX_MODES)
def test_flux_resumes_to_the_byte(start, tiny_run, tiny_flux, mode):
    check_resume(start, tiny_run | {"model_family": "flux", "pretrained_model_name_or_path": str(tiny_flux)} | mode)


def check_resume(start, values):
    """Trains in one go, and in three lives of which the first loses a step."""
    straight = start(values, "straight")
    straight.session.train(6)
    first = start(values, "resumed")
    first.session.train(2)
    first.session.save_checkpoint()
    first.session.train(3)  # lost with the process
    second = start(values, "resumed")
    assert second.position["step"] == 2
    second.session.train(4)
    second.session.save_checkpoint()
    third = start(values, "resumed")
    third.session.train(6)
    assert third.release() == straight.release()
    assert third.losses() == {step: loss for step, loss in straight.losses().items() if step > 4}


def test_checkpoint_and_release_hold_the_average_of_a_schedule_free_optimizer(start, tiny_run):
    run = start(tiny_run | {"optimizer": "adamw_schedulefree", "model_type": "lora", "lora_rank": 4}, "average")
    run.session.train(3)
    path = Path(run.session.save_checkpoint()["path"]) / "pytorch_lora_weights.safetensors"
    trained = {name: tensor.clone() for name, tensor in run.session._trainer.part.state().items()}
    run.release()
    saved, released = load_file(path), load_file(run.output / path.name)
    assert all(torch.equal(saved[name], released[name]) for name in trained)
    assert not all(torch.equal(saved[name], trained[name]) for name in trained)


def test_resuming_at_the_end_of_an_epoch_goes_on_with_the_next_one(start, tiny_run):
    values = tiny_run | {"max_train_steps": 11}  # sixteen pictures in batches of two: an epoch is eight steps
    straight = start(values, "straight")
    straight.session.train(11)
    first = start(values, "resumed")
    first.session.train(8)
    assert first.session.save_checkpoint()["step"] == 8
    second = start(values, "resumed")
    second.session.train(11)
    assert second.release() == straight.release()


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param({"use_ema": True}, id="ema"),
        pytest.param({"optimizer": "adamw_schedulefree"}, id="schedule-free", marks=pytest.mark.slow),
    ],
)
def test_validation_changes_nothing_but_the_disk(start, tiny_run, mode):
    values = tiny_run | {"lora_dropout": 0.2, "model_type": "lora"} | mode
    without = start(values, "without")
    without.session.train(4)
    shown = values | {
        "validation_disable": False,
        "validation_prompt": "a red circle",
        "validation_resolution": "32x32",
        "validation_num_inference_steps": 2,
        "validation_guidance": 3.0,
    }
    watched = start(shown, "with")
    for step in (1, 2, 4):
        watched.session.train(step)
        report = watched.session.validate()
        assert report["error"] is None
        assert all(Path(image).stat().st_size for image in [*report["images"], report["sheet"]])
    assert watched.release() == without.release()
    assert watched.losses() == without.losses()


def test_a_validation_that_fails_is_a_warning(start, tiny_run):
    values = tiny_run | {"validation_disable": False, "validation_prompt": "a", "validation_resolution": "32x32"}
    run = start(values, "failing")
    run.session.train(1)
    (run.output / "validation_images").write_text("a file is in the way")
    assert run.session.validate()["error"]
    assert "training goes on" in run.warnings()[-1]
    run.session.train(2)


@pytest.mark.slow
def test_training_learns_something(start, tiny_run):
    run = start(tiny_run | {"max_train_steps": 40, "lr_scheduler": "constant"}, "learning")
    run.session.train(40)
    losses = list(run.losses().values())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_stop_saves_the_step_that_was_reached(start, tiny_run):
    run = start(tiny_run, "stopped")
    run.session.train(3)
    run.stop.set()
    assert run.session.train(6) | {"loss": 0} == {"step": 3, "loss": 0, "stopped": True, "paused": False}
    run.session.close()
    assert [path.name for path in checkpoints.list_checkpoints(run.output)] == ["checkpoint-3"]


@pytest.mark.parametrize("mode", ["full, everything on", "lora"])
def test_a_stop_within_an_accumulation_loses_no_step_and_changes_nothing(start, tiny_run, mode):
    values = tiny_run | MODES[mode] | {"gradient_accumulation_steps": 4}
    straight = start(values, "straight")
    straight.session.train(4)
    first = start(values, "resumed")
    first.session.train(2)
    feed = first.session._trainer.feed
    read = feed._read_text
    asked = []

    def read_and_stop(caption):
        asked.append(caption)
        if len(asked) > 4:  # two captions a micro batch
            first.stop.set()
        return read(caption)

    feed._read_text = read_and_stop
    assert first.session.train(4)["step"] == 2
    assert len(asked) < 8
    first.session.close()
    second = start(values, "resumed")
    assert second.position["step"] == 2
    second.session.train(4)
    assert second.release() == straight.release()


def test_checkpoints_rotate(start, tiny_run):
    run = start(tiny_run | {"checkpoints_total_limit": 2}, "rotating")
    for step in (1, 2, 3):
        run.session.train(step)
        run.session.save_checkpoint()
    assert [path.name for path in checkpoints.list_checkpoints(run.output)] == ["checkpoint-2", "checkpoint-3"]


def test_a_changed_batch_size_is_refused_by_name(start, tiny_run):
    run = start(tiny_run, "changed")
    run.session.train(1)
    run.session.save_checkpoint()
    with pytest.raises(CheckpointError, match="train_batch_size was 2, now 4"):
        start(tiny_run | {"train_batch_size": 4}, "changed")


def test_new_pictures_are_noticed_and_trained_on(start, tiny_run, pictures):
    run = start(tiny_run, "growing")
    run.session.train(1)
    run.session.save_checkpoint()
    (pictures / "a_red_circle_0.png").rename(pictures / "a_crimson_disc.png")
    grown = start(tiny_run, "growing")
    assert "the data set changed" in grown.warnings()[-1]
    grown.session.train(2)


def test_a_loss_that_is_no_number_ends_the_run_before_it_can_be_saved(start, tiny_run):
    run = start(tiny_run | {"learning_rate": 1e30, "max_grad_norm": 0, "lr_scheduler": "constant"}, "exploding")
    with pytest.raises(EngineFault, match=r"the loss became .* Lower learning_rate"):
        run.session.train(6)


def test_without_a_seed_the_checkpoint_remembers_the_one_that_was_drawn(start, tiny_run):
    values = {name: value for name, value in tiny_run.items() if name != "seed"}
    first = start(values, "unseeded")
    first.session.train(2)
    first.session.save_checkpoint()
    first.session.train(4)
    second = start(values, "unseeded")
    second.session.train(4)
    assert second.losses() == {step: loss for step, loss in first.losses().items() if step > 2}
