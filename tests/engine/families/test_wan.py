"""What is special about Wan: films from the data set to the validation, and text whose padding counts."""

import json

import pytest
import torch
from PIL import Image, ImageDraw

from flowtuner.engine.families import open_family
from flowtuner.engine.preflight import inspect_run
from flowtuner.options import load

CPU = torch.device("cpu")
Wan = open_family("wan")


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory):
    return Wan.tiny(tmp_path_factory.mktemp("wan") / "model")


@pytest.fixture
def films(tmp_path):
    """Four films of seven frames: a square that wanders."""
    folder = tmp_path / "films"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "yellow")):
        frames = []
        for step in range(7):
            frame = Image.new("RGB", (32, 32))
            ImageDraw.Draw(frame).rectangle((2 + 3 * step, 8, 10 + 3 * step, 20 + number), fill=colour)
            frames.append(frame)
        frames[0].save(folder / f"a_{colour}_square.gif", save_all=True, append_images=frames[1:], duration=60)
    return folder


@pytest.fixture
def film_run(tiny_run, tiny_wan, films):
    place = tiny_run["data_backend_config"]
    with open(place, encoding="utf-8") as file:
        pictures, texts = json.load(file)
    entry = pictures | {"instance_data_dir": str(films), "dataset_type": "video", "video": {"num_frames": 5}}
    with open(place, "w", encoding="utf-8") as file:
        json.dump([entry, texts], file)
    return tiny_run | {
        "model_family": "wan",
        "pretrained_model_name_or_path": str(tiny_wan),
        "model_type": "lora",
        "lora_rank": 4,
        "aspect_bucket_alignment": 8,
    }


def test_padding_belongs_to_the_prompt(tiny_wan, configure):
    """Wan attends to zeros behind a prompt: cutting them off is another prompt to it."""
    family = Wan(tiny_wan, configure(model_family="wan"))
    rows = family.load_text_encoder(torch.float32, CPU).encode(["a red circle", "a  red&#32;circle"])
    assert [len(row["prompt_embeds"]) for row in rows] == [4, 4]
    whole = family.collate_text(rows)["prompt_embeds"]
    assert whole.shape[1] == family.max_text_tokens
    assert not whole[:, 4:].any()
    model = family.load_model(torch.float32, CPU)
    noisy = torch.randn(2, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        padded = family.predict(model, noisy, torch.tensor([500.0] * 2), {"prompt_embeds": whole})
        cut = family.predict(model, noisy, torch.tensor([500.0] * 2), {"prompt_embeds": whole[:, :4]})
    assert not torch.allclose(padded, cut, atol=1e-4)


def test_a_picture_is_a_film_of_one_frame(tiny_wan, configure):
    vae = Wan(tiny_wan, configure(model_family="wan")).load_vae(torch.float32, CPU)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(vae.encode(picture), vae.encode(picture[:, :, None]))


def test_wan_2_2_is_refused_by_name(tiny_wan, tmp_path):
    for path in tiny_wan.iterdir():
        (tmp_path / path.name).symlink_to(path)
    index = json.loads((tiny_wan / "model_index.json").read_text())
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "model_index.json").write_text(
        json.dumps(index | {"transformer_2": ["diffusers", "WanTransformer3DModel"]})
    )
    assert Wan.check_source(tiny_wan) == []
    (fault,) = Wan.check_source(tmp_path)
    assert "Wan 2.2" in fault


def test_films_train_and_are_shown(start, film_run):
    asked = {
        "validation_disable": False,
        "validation_prompt": "a red square",
        "validation_resolution": "32x32",
        "validation_num_video_frames": 5,
        "validation_num_inference_steps": 2,
        "validation_guidance": 2.0,
    }
    assert inspect_run(load(values=film_run | asked, environ={})) == []
    run = start(film_run | asked)
    run.session.train(2)
    run.session.validate()
    assert all(loss > 0 for loss in run.losses().values())
    (shown,) = [data for type, data in run.events if type == "training.validation"]
    assert shown["error"] is None
    assert shown["images"] == []
    assert len(shown["videos"]) == len(shown["prompts"])
    with Image.open(shown["videos"][0]) as film:
        assert (film.format, film.n_frames, film.size) == ("GIF", 5, (32, 32))


def test_films_resume_to_the_byte(start, film_run):
    straight = start(film_run, "straight")
    straight.session.train(4)
    first = start(film_run, "resumed")
    first.session.train(2)
    first.session.save_checkpoint()
    second = start(film_run, "resumed")
    second.session.train(4)
    assert second.losses() == {step: loss for step, loss in straight.losses().items() if step > 2}
