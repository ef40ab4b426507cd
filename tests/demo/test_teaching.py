"""It really learns: from scratch, and a new word by an adapter that keeps the old ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowtuner.demo.evaluate import draw_all
from flowtuner.demo.judge import score
from flowtuner.demo.run import EXAMPLE, PLACE
from flowtuner.demo.shapes import every_figure
from flowtuner.options import load
from tests.demo.teaching import teach_base, teach_word

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Path, Path]:
    """The demo's trained pipeline, and the pictures that it was trained on."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    return teach_base(folder), folder / "pictures"


def test_pixart_learns_from_scratch_in_500_steps(base):
    """Colour and shape both right, by the demo's own configuration."""
    folder = base[1].parent
    config = load(config_file=EXAMPLE, environ={PLACE: str(folder)}).config
    wanted = [figure for figure in every_figure() for _ in range(2)]
    before, after = (score(draw_all(model, config, wanted), wanted) for model in (folder / "model", base[0]))
    assert before.both < 0.1
    assert after.both >= 0.85


def test_a_lora_learns_a_new_word_and_forgets_old_ones(base, tmp_path):
    new, old = teach_word(tmp_path, base[0], None, 200, lora_rank=16, learning_rate=1e-2)
    assert new.both >= 0.8
    assert old.both < 0.9


@pytest.mark.parametrize(
    ("steps", "adapter"),
    [(100, {"lora_rank": 16, "learning_rate": 5e-3}), (130, {"lora_type": "lycoris", "learning_rate": 2e-2})],
    ids=["lora", "lokr as built in"],
)
def test_old_pictures_in_turn_keep_the_old_words(base, tmp_path, steps, adapter):
    new, old = teach_word(tmp_path, *base, steps, **adapter)
    assert new.both >= 0.8
    assert old.both >= 0.95


@pytest.mark.parametrize(
    ("steps", "adapter"),
    [(200, {"lora_rank": 16, "learning_rate": 1e-2}), (300, {"lora_type": "lycoris", "learning_rate": 8e-2})],
    ids=["lora", "lokr as built in"],
)
def test_a_regularisation_set_keeps_the_old_words_that_are_lost_without_it(base, tmp_path, steps, adapter):
    options = adapter | {"lr_scheduler": "cosine"}
    scores = []
    for name, old in (("with", base[1]), ("without", None)):
        (tmp_path / name).mkdir()
        scores.append(teach_word(tmp_path / name, base[0], old, steps, is_regularisation=True, **options))
    (new, kept), (new_alone, left) = scores
    print(f"with the set {new.both:.2f} and {kept.both:.2f}, without {new_alone.both:.2f} and {left.both:.2f}")
    assert min(new.both, new_alone.both) >= 0.8
    assert kept.both >= 0.95
    assert left.both <= 0.9
