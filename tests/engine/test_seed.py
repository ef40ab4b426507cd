"""Counter-based draws and the isolation of global generators."""

import random

import numpy as np
import torch

from flowtuner.engine import seed


def test_counters_give_the_same_numbers_everywhere_and_differ_from_their_neighbours():
    assert seed.mix(1337, 1, 0) == seed.mix(1337, 1, 0)
    assert len({seed.mix(a, b) for a in range(100) for b in range(100)}) == 10_000
    assert all(0 <= seed.mix(a) < 2**63 for a in range(1000))


def test_uniform_is_uniform_enough_for_dropout():
    draws = [seed.uniform(5, 2, number) for number in range(20_000)]
    assert abs(sum(draw < 0.1 for draw in draws) / len(draws) - 0.1) < 0.01


def test_what_happens_inside_isolation_is_not_felt_outside():
    seed.seed_everything(3)
    expected = (random.random(), np.random.rand(), torch.rand(3).tolist())
    seed.seed_everything(3)
    with seed.isolated_randomness():
        random.random(), np.random.rand(100), torch.rand(100)
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == expected


def test_states_survive_a_file(tmp_path):
    seed.seed_everything(9)
    random.gauss(0, 1)
    torch.save(seed.capture_states(), tmp_path / "states")
    expected = (random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(2).tolist())
    seed.seed_everything(1)
    seed.restore_states(torch.load(tmp_path / "states", weights_only=True))
    assert (random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(2).tolist()) == expected
