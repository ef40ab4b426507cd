"""A model cut up over two processes: the same curve as in one, exact resume, files that anybody can read."""

import pytest
from PIL import Image, ImageChops, ImageStat

from flowtuner.durable import sha256_of
from flowtuner.engine.events import EventLog, read_events
from flowtuner.engine.families.parts.weights import read_weights
from flowtuner.engine.launch import Engine
from flowtuner.engine.run import RunSpec
from flowtuner.options import load

FULL = {"model_type": "full", "optimizer": "torch-adamw", "caption_dropout_probability": 0.3, "use_ema": True}
LORA = {"model_type": "lora", "lora_rank": 4, "lora_dropout": 0.0, "optimizer": "torch-adamw", "use_ema": False}
CUT_UP = {"num_processes": 2, "fsdp_enable": True, "train_batch_size": 2}
WEIGHTS = {"full": "pipeline/transformer/*.safetensors", "lora": "pytorch_lora_weights.safetensors"}


class Trained:
    """What a run has left."""

    def __init__(self, output, began, report, model_type):
        self.output, self.began, self.report = output, began, report
        events = list(read_events(output / "logs" / "events.jsonl"))
        self.losses = {event.data["step"]: event.data["loss"] for event in events if event.type == "training.metric"}
        (self.release,) = output.glob(WEIGHTS[model_type])

    def files(self, step):
        folder = self.output / f"checkpoint-{step}"
        return {path.name: sha256_of(path) for path in folder.rglob("*.safetensors")} | {
            "optimizer": sha256_of(folder / "optimizer.bin")
        }


@pytest.fixture
def train(tmp_path, tiny_run):
    def train_one(name, values, *legs):
        output = tmp_path / name
        least = {"torch_num_threads": 1, "validation_disable": False, "validation_resolution": "64x64"}
        least |= {"validation_prompt": "a red circle", "validation_num_inference_steps": 2}
        loaded = load(values=tiny_run | least | values | {"output_dir": str(output)}, environ={})
        spec = RunSpec(name, loaded, output)
        with EventLog(spec.event_log, name) as log, Engine(spec, log) as engine:
            engine.cache_text()
            engine.cache_latents()
            position = engine.prepare()
            for step in legs:
                engine.train(step)
                engine.save_checkpoint()
            report = engine.validate()
            engine.train(legs[-1] + 1)  # what was made whole to be looked at is cut up again
            engine.save_release()
        return Trained(output, position.step, report, values["model_type"])

    return train_one


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("values", [FULL, LORA], ids=["full", "lora"])
def test_two_processes_train_one_model_as_one_would(train, values):
    alone = train("alone", values | {"train_batch_size": 4}, 4)
    cut_up = train("cut-up", values | CUT_UP, 4)
    assert cut_up.losses == pytest.approx(alone.losses, rel=1e-4)
    assert len(cut_up.losses) == 5
    assert cut_up.report.error is None
    assert [path.name for path in cut_up.report.images] == [path.name for path in alone.report.images]
    for ours, theirs in zip(cut_up.report.images, alone.report.images, strict=True):
        assert ImageStat.Stat(ImageChops.difference(Image.open(ours), Image.open(theirs))).mean == pytest.approx(
            [0, 0, 0], abs=1.0
        )
    ours, theirs = read_weights(cut_up.release), read_weights(alone.release)
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    assert all(ours[name].allclose(theirs[name], rtol=0.02, atol=2e-4) for name in ours)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("values", [FULL, LORA], ids=["full", "lora"])
def test_a_cut_up_model_resumes_to_the_byte(train, values):
    straight = train("straight", values | CUT_UP, 2, 4)
    train("resumed", values | CUT_UP, 2)
    resumed = train("resumed", values | CUT_UP, 4)
    assert resumed.began == 3  # leaving saves the step after the last leg
    assert resumed.files(4) == straight.files(4)
    assert sha256_of(resumed.release) == sha256_of(straight.release)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cut_up_run_goes_on_in_one_process_and_back(train):
    straight = train("straight", FULL | {"train_batch_size": 4}, 6)
    train("moved", FULL | CUT_UP, 2)
    alone = train("moved", FULL | {"train_batch_size": 4}, 4)
    back = train("moved", FULL | CUT_UP, 6)
    assert (alone.began, back.began) == (3, 5)
    assert back.losses == pytest.approx(straight.losses, rel=1e-4)
