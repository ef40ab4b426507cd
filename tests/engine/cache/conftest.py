"""Stores, samples and small honest encoders for the tests of the cache room."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from flowtuner.engine.cache.store import Store
from flowtuner.engine.data.sample import Plan, Sample


class WordEncoder:
    """One number per letter of each word; counts how often it is asked."""

    def __init__(self, value=None):
        self.batches = []
        self._value = value

    def count_tokens(self, prompts):
        return [len(prompt.split()) for prompt in prompts]

    def encode(self, prompts):
        self.batches.append(list(prompts))
        return [self._row(prompt) for prompt in prompts]

    def _row(self, prompt):
        words = [[float(len(word)), self._value or float(ord(word[0]))] for word in prompt.split()]
        return {"embeds": torch.tensor(words).reshape(-1, 2), "mask": torch.ones(len(words), dtype=torch.bool)}


@pytest.fixture
def words():
    return WordEncoder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def make_samples(tmp_path):
    def make(count, size=(16, 8), dataset="d", start=0):
        made = []
        for number in range(start, start + count):
            path = tmp_path / "pictures" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            made.append(Sample(dataset, str(path), content, (f"caption {number}",), Plan(1, size, (0, 0, *size))))
        return made

    return make
