"""Prompts: each distinct one once, like lengths together, nothing encoded twice."""

import pytest
import torch

from flowtuner.engine.cache.store import Store
from flowtuner.engine.cache.text import TextCache
from flowtuner.errors import DataError


def quiet(done, total):
    pass


def fill(cache, prompts, encoder, batch_size=4, write_rows=128, report=quiet):
    return cache.encode_missing(prompts, lambda: encoder, batch_size=batch_size, write_rows=write_rows, report=report)


@pytest.fixture
def cache(store):
    return TextCache(store, "encoder", 77, torch.float32)


def test_cached_equals_uncached(cache, words):
    prompts = ["a red dog", "", "one", "a red dog", "two words"]
    report = fill(cache, prompts, words())
    assert (report.total, report.hits, report.encoded) == (4, 0, 4)
    for prompt in prompts:
        expected = words().encode([prompt])[0]
        assert all(torch.equal(cache.read(prompt)[name], expected[name]) for name in expected)


def test_second_time_nothing_is_opened(cache, words):
    fill(cache, ["a", "b"], words())
    again = TextCache(Store(cache.store.root), "encoder", 77, torch.float32)
    report = again.encode_missing(["a", "b"], lambda: pytest.fail("opened"), batch_size=1, write_rows=1, report=quiet)
    assert (report.total, report.hits, report.encoded) == (2, 2, 0)


def test_editing_one_caption_encodes_one_prompt(cache, words):
    fill(cache, [f"prompt {n}" for n in range(20)], words())
    encoder = words()
    report = fill(cache, [f"prompt {n}" for n in range(19)] + ["another prompt"], encoder)
    assert report.encoded == 1 and encoder.batches == [["another prompt"]]


def test_batches_hold_like_lengths(cache, words):
    encoder = words()
    fill(cache, ["x " * (n % 5 + 1) for n in range(5)] + [f"a b c{n}" for n in range(7)], encoder, batch_size=4)
    lengths = [[len(prompt.split()) for prompt in batch] for batch in encoder.batches]
    assert [length for batch in lengths for length in batch] == [5, 4, 3, 3, 3, 3, 3, 3, 3, 3, 2, 1]


@pytest.mark.parametrize(
    "other", [("other", 77, torch.float32), ("encoder", 78, torch.float32), ("encoder", 77, torch.bfloat16)]
)
def test_whatever_decides_the_numbers_is_in_the_key(cache, words, other):
    fill(cache, ["a"], words())
    assert not TextCache(cache.store, *other).has("a")


def test_floats_take_the_cache_type_and_masks_do_not(store, words):
    cache = TextCache(store, "encoder", 77, torch.bfloat16)
    fill(cache, ["a red dog"], words())
    row = cache.read("a red dog")
    assert row["embeds"].dtype == torch.bfloat16 and row["mask"].dtype == torch.bool


def test_numbers_that_are_not_finite_stop_the_stage(cache, words):
    with pytest.raises(DataError, match=r"infinite or undefined numbers in float32 for the prompt 'a b'"):
        fill(cache, ["a b"], words(float("inf")))


def test_progress_and_a_stop_from_outside(cache, words):
    seen = []
    fill(cache, ["a", "b", "c"], words(), report=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 3) and seen[-1] == (3, 3)
