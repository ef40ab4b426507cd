"""Random numbers that a resumed run draws again exactly: counters where possible, saved states elsewhere."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

MASK = (1 << 64) - 1


def choose_seed(wanted: int | None) -> int:
    """The run's seed: the given one, or a fresh one that the checkpoints will remember."""
    return secrets.randbits(31) if wanted is None or wanted < 0 else wanted


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, on all devices."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)


def mix(*numbers: int) -> int:
    """Hashes counters into one well-spread 63-bit seed (SplitMix64's finaliser, chained)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state + (number & MASK) + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state >> 1


def uniform(*numbers: int) -> float:
    """A number in [0, 1) that depends on the counters alone."""
    return (mix(*numbers) >> 10) / (1 << 53)


def capture_states() -> dict[str, Any]:
    """The states of every generator that model code may draw from."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_states(states: dict[str, Any]) -> None:
    """Puts the generators back where `capture_states` found them."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy(), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextlib.contextmanager
def isolated_randomness() -> Iterator[None]:
    """Lets code inside draw what it likes; outside, nothing happened."""
    states = capture_states()
    try:
        yield
    finally:
        restore_states(states)
