import hashlib

import numpy as np
import pytest
from PIL import Image

from flowtuner.demo.judge import Verdict, judge, score
from flowtuner.demo.shapes import COLOURS, EDGE, SHAPES, Figure, draw, draw_many, every_figure, write_dataset


def test_there_are_eighteen_figures():
    assert len(every_figure()) == len(COLOURS) * len(SHAPES) == 18
    assert Figure("red", "circle").caption == "a red circle"


def test_the_judge_is_right_about_every_true_picture():
    drawn = list(draw_many(360, seed=5))
    result = score([pixels for _, pixels in drawn], [figure for figure, _ in drawn])
    assert (result.colour, result.both) == (1.0, 1.0)


def test_the_judge_sees_through_noise():
    random = np.random.default_rng(0)
    drawn = list(draw_many(90, seed=6))
    noisy = [np.clip(pixels + random.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8) for _, pixels in drawn]
    assert score(noisy, [figure for figure, _ in drawn]).both > 0.95


@pytest.mark.parametrize("level", [0, 60])
def test_an_empty_picture_shows_nothing(level):
    assert judge(np.full((EDGE, EDGE, 3), level, np.uint8)) == Verdict(None, None)


def test_noise_and_a_full_picture_have_no_shape():
    random = np.random.default_rng(1)
    assert judge(random.integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)).shape is None
    assert judge(np.full((EDGE, EDGE, 3), 255, np.uint8)).shape is None


def test_score_counts_colour_apart_from_shape():
    pictures = [draw(Figure("red", "circle")), draw(Figure("red", "square")), draw(Figure("blue", "circle"))]
    result = score(pictures, [Figure("red", "circle")] * 3)
    assert (result.colour, result.both) == (2 / 3, 1 / 3)


def test_a_data_set_has_captions_beside_pictures_and_the_same_bytes_for_a_seed(tmp_path):
    first, second = write_dataset(tmp_path / "a", 36, seed=1), write_dataset(tmp_path / "b", 36, seed=1)
    pictures = sorted(first.glob("*.png"))
    assert len(pictures) == 36
    for picture in pictures:
        colour, shape, _ = picture.stem.split("_")
        assert picture.with_suffix(".txt").read_text() == f"a {colour} {shape}\n"
        with Image.open(picture) as image:
            assert image.size == (EDGE, EDGE)
    assert _digests(first) == _digests(second)
    assert _digests(first) != _digests(write_dataset(tmp_path / "c", 36, seed=2))


def _digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
