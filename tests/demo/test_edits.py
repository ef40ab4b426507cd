"""Kontext really learns to edit: the colour of the prompt, the shape of the picture that it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.demo.edits import build_editor, open_editing, score_edits

STEPS = 300


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kontext_learns_edits_in_300_steps(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    session = open_editing(tmp_path, build_editor(tmp_path), STEPS)
    before = score_edits(session)
    session.train(STEPS)
    after, blind = score_edits(session), score_edits(session, is_blind=True)
    session.close()
    print(f"untrained {before.both:.2f}, trained {after.both:.2f}, without the picture {blind.both:.2f}")
    assert before.both < 0.1
    assert after.both >= 0.9
    assert blind.both < 0.6  # the shape came from the picture, not from the prompt
