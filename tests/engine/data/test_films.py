"""Films: animated files and folders of frames, how many of their frames are used, and what cannot be a film."""

import json

import numpy as np
import pytest
from PIL import Image

from flowtuner.engine.data.films import FilmSettings, find_films, fit_frames, load_frames
from flowtuner.engine.data.sample import FilmPlan, Plan
from flowtuner.engine.data.sampler import Sampler
from flowtuner.engine.data.scan import scan_datasets
from flowtuner.errors import DataError
from flowtuner.options import load


def shade(number):
    """A grey frame whose brightness is its number: what is read can be told apart."""
    return Image.new("RGB", (40, 32), (12 * number, 12 * number, 12 * number))


def write_gif(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (shade(number) for number in range(count))
    first.save(path, save_all=True, append_images=others, duration=60)


def write_folder(path, count, suffix=".png"):
    path.mkdir(parents=True)
    for number in range(count):
        shade(number).save(path / f"frame_{number}{suffix}")


@pytest.fixture
def scan(tmp_path):
    def scan_films(*, model_family="wan", **video):
        entry = {
            "id": "films",
            "type": "local",
            "dataset_type": "video",
            "instance_data_dir": str(tmp_path / "films"),
            "caption_strategy": "filename",
            "resolution": 32,
            "resolution_type": "pixel",
            "video": video,
        }
        (tmp_path / "data.json").write_text(json.dumps([entry]))
        values = {
            "model_family": model_family,
            "model_type": "lora",
            "output_dir": str(tmp_path / "output"),
            "data_backend_config": str(tmp_path / "data.json"),
            "aspect_bucket_alignment": 8,
            "max_train_steps": 1,
            "num_train_epochs": 0,
        }
        loaded = load(values=values, environ={})
        return loaded, scan_datasets(
            loaded.datasets, loaded.config, index_dir=tmp_path / "index", report=lambda done, total: None
        )

    return scan_films


@pytest.mark.parametrize("kind", ["gif", "webp", "frames"])
def test_the_first_frames_of_every_kind_of_film(tmp_path, scan, kind):
    folder = tmp_path / "films"
    if kind == "frames":
        write_folder(folder / "a_grey_day", 12)
    else:
        write_gif(folder / f"a_grey_day.{kind}", 12)
    _, found = scan(num_frames=5)
    (sample,) = found.samples
    assert sample.captions == ("a grey day",)
    assert isinstance(sample.plan, FilmPlan)
    assert sample.shapes == ((40, 32, 5),)
    pixels = load_frames(sample, sample.plan)
    assert pixels.shape == (3, 5, 32, 40)
    brightness = (pixels.mean(axis=(0, 2, 3)) + 1) * 127.5
    assert np.abs(brightness - 12 * np.arange(5)).max() < 3


def test_frames_are_in_the_order_of_their_numbers(tmp_path, scan):
    write_folder(tmp_path / "films" / "count", 13)  # frame_10 after frame_9, not after frame_1
    (sample,) = scan(num_frames=13)[1].samples
    brightness = load_frames(sample, sample.plan).mean(axis=(0, 2, 3))
    assert (np.diff(brightness) > 0).all()


def test_what_is_left_out_and_why(tmp_path, scan):
    folder = tmp_path / "films"
    write_gif(folder / "long.gif", 9)
    write_gif(folder / "short.gif", 4)
    write_folder(folder / "uneven", 6)
    Image.new("RGB", (24, 24)).save(folder / "uneven" / "frame_9.png")
    (folder / "talk.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    shade(1).save(folder / "alone.png")
    (folder / "broken.gif").write_bytes((folder / "long.gif").read_bytes()[:300])
    _, found = scan(num_frames=5)
    assert [sample.path for sample in found.samples] == [str(folder / "long.gif")]
    reasons = {fault.path.rsplit("/", 1)[1]: fault.reason for fault in found.quarantined}
    assert set(reasons) == {"short.gif", "uneven", "talk.mp4", "alone.png", "broken.gif"}
    assert "4 frames" in reasons["short.gif"]
    assert "several sizes" in reasons["uneven"]
    assert "video decoder" in reasons["talk.mp4"]
    assert "folder" in reasons["alone.png"]


def test_by_length_films_fall_into_buckets_of_their_own(tmp_path, scan):
    for number, count in enumerate((6, 7, 11, 20)):
        write_gif(tmp_path / "films" / f"film_{number}.gif", count)
    loaded, found = scan(bucket_strategy="resolution_frames", frame_interval=2, max_frames=16)
    assert [sample.plan.frames for sample in found.samples] == [5, 5, 9]
    assert "20 frames" in found.quarantined[0].reason
    with pytest.raises(DataError, match=r"bucket 40x32 of 9 frames holds 1 film,"):
        Sampler(found.samples, loaded.datasets, 2, seed=0)


def test_frames_that_changed_since_the_scan_are_noticed(tmp_path, scan):
    write_folder(tmp_path / "films" / "film", 5)
    (sample,) = scan(num_frames=5)[1].samples
    shade(9).save(tmp_path / "films" / "film" / "frame_2.png")
    with pytest.raises(DataError, match="changed since the scan"):
        load_frames(sample, sample.plan)
    assert scan(num_frames=5)[1].samples[0].content != sample.content


@pytest.mark.parametrize(
    ("count", "group", "fits"), [(1, 4, 1), (4, 4, 1), (5, 4, 5), (80, 4, 77), (81, 4, 81), (7, 1, 7)]
)
def test_how_many_frames_fit(count, group, fits):
    assert fit_frames(count, group) == fits


def test_settings_that_cannot_be_are_told(tmp_path, scan):
    write_gif(tmp_path / "films" / "film.gif", 9)
    with pytest.raises(DataError, match=r"num_frames 6.*5 or 9"):
        scan(num_frames=6)
    with pytest.raises(DataError, match="is_i2v"):
        scan(num_frames=5, is_i2v=True)
    with pytest.raises(DataError, match="sdxl draws pictures"):
        scan(model_family="sdxl", num_frames=5)


def test_a_films_latents_have_a_key_of_their_own():
    picture, film = Plan(1, (40, 32), (0, 0, 40, 32)), FilmPlan(1, (40, 32), (0, 0, 40, 32), 5)
    assert picture.identity != film.identity
    assert FilmSettings(9, 9).cut(picture, 12) == FilmPlan(1, (40, 32), (0, 0, 40, 32), 9)
    assert str(film).endswith("5 frames")


def test_listing_looks_no_deeper_than_names(tmp_path):
    write_gif(tmp_path / "b.gif", 2)
    write_folder(tmp_path / "sub" / "a", 2)
    assert sorted(file.path for file in find_films(tmp_path)) == [str(tmp_path / "b.gif"), str(tmp_path / "sub" / "a")]
