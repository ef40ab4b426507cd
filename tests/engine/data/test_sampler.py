"""The sampler: stateless, reproducible, one bucket per batch, datasets mixed by weight."""

import random
from collections import Counter

import numpy as np
import pytest

from flowtuner.engine.data.order import permute
from flowtuner.engine.data.sample import Plan, Sample
from flowtuner.engine.data.sampler import Sampler
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry


def samples_of(dataset, sizes, captions=("only",)):
    return [
        Sample(dataset, f"/{dataset}/{size}-{n}.png", f"{size}{n}", captions, Plan(1, size, (0, 0, *size)))
        for size, count in sizes.items()
        for n in range(count)
    ]


def entry(name="a", repeats=0, probability=1.0, train_batch_size=None):
    return DatasetEntry(id=name, repeats=repeats, probability=probability, train_batch_size=train_batch_size)


SIZES = {(64, 64): 17, (128, 64): 9, (64, 128): 6}


def epoch_of(sampler, number):
    size = sampler.micro_batches_per_epoch
    return [sampler.batch(n) for n in range(number * size, (number + 1) * size)]


def test_any_batch_is_the_same_in_any_order_of_asking():
    made = {}
    sampler = Sampler(samples_of("a", SIZES, ("x", "y", "z")), [entry()], 4, seed=7)
    numbers = list(range(40))
    for n in numbers:
        made[n] = sampler.batch(n)
    random.Random(1).shuffle(numbers)
    other = Sampler(samples_of("a", SIZES, ("x", "y", "z")), [entry()], 4, seed=7)
    assert all(other.batch(n) == made[n] for n in numbers)


def test_permutation_is_pinned():
    # A resumed run relies on these numbers: they may never change.
    assert permute(10, 7, "items", "a", 0).tolist() == PINNED
    assert sorted(permute(1000, 1).tolist()) == list(range(1000))


PINNED = [8, 3, 9, 2, 5, 4, 1, 6, 7, 0]


def test_batches_never_mix_buckets_and_tails_are_dropped():
    sampler = Sampler(samples_of("a", SIZES), [entry()], 4, seed=7)
    assert sampler.micro_batches_per_epoch == 17 // 4 + 9 // 4 + 6 // 4
    batches = epoch_of(sampler, 0)
    assert all(len(batch) == 4 and len({draw.sample.bucket for draw in batch}) == 1 for batch in batches)
    seen = Counter(draw.sample.path for batch in batches for draw in batch)
    assert max(seen.values()) == 1 and len(seen) == 7 * 4


def test_epochs_differ_and_so_do_the_tails():
    sampler = Sampler(samples_of("a", SIZES), [entry()], 4, seed=7)
    seen = [{draw.sample.path for batch in epoch_of(sampler, epoch) for draw in batch} for epoch in range(8)]
    assert len(set.union(*seen)) == 32
    assert epoch_of(sampler, 0) != epoch_of(sampler, 1)


def test_repeats_are_extra_passes():
    sampler = Sampler(samples_of("a", {(64, 64): 6}), [entry(repeats=2)], 3, seed=7)
    seen = Counter(draw.sample.path for batch in epoch_of(sampler, 0) for draw in batch)
    assert set(seen.values()) == {3} and len(seen) == 6


def test_datasets_are_mixed_by_probability():
    samples = samples_of("a", {(64, 64): 80}) + samples_of("b", {(64, 64): 40})
    sampler = Sampler(samples, [entry("a"), entry("b", probability=0.5)], 4, seed=7)
    assert sampler.micro_batches_per_epoch == 20 + 5
    epochs = [[batch[0].sample.dataset_id for batch in epoch_of(sampler, epoch)] for epoch in range(2)]
    assert [Counter(epoch) for epoch in epochs] == [{"a": 20, "b": 5}] * 2
    assert epochs[0] != epochs[1]
    # What the first epoch left of b comes in the second.
    seen = Counter(draw.sample.path for epoch in range(2) for batch in epoch_of(sampler, epoch) for draw in batch)
    assert {count for path, count in seen.items() if path.startswith("/b")} == {1}
    assert sum(path.startswith("/b") for path in seen) == 40


def test_no_samples_at_all():
    with pytest.raises(DataError, match="no dataset has a usable picture"):
        Sampler([], [entry()], 4, seed=7)


def test_batch_size_of_a_dataset_wins():
    sampler = Sampler(samples_of("a", {(64, 64): 8}), [entry(train_batch_size=2)], 4, seed=7)
    assert len(sampler.batch(0)) == 2 and sampler.micro_batches_per_epoch == 4


def test_captions_are_chosen_anew_each_epoch():
    sampler = Sampler(samples_of("a", {(64, 64): 8}, ("x", "y", "z")), [entry()], 4, seed=7)
    chosen = [{d.sample.path: d.caption for b in epoch_of(sampler, epoch) for d in b} for epoch in range(30)]
    assert chosen[0] != chosen[1]
    counts = Counter(caption for epoch in chosen for caption in epoch.values())
    assert all(50 < counts[caption] < 110 for caption in "xyz")


def test_seeds_differ():
    one, two = (Sampler(samples_of("a", SIZES), [entry()], 4, seed=seed) for seed in (1, 2))
    assert epoch_of(one, 0) != epoch_of(two, 0)


def test_small_bucket_names_the_repeats_it_needs():
    samples = samples_of("a", {(64, 64): 17, (128, 64): 3})
    with pytest.raises(DataError) as caught:
        Sampler(samples, [entry()], 4, seed=7, accumulation=2)
    message = str(caught.value)
    assert "bucket 128x64 holds 3 pictures" in message and "Set repeats to at least 2." in message
    assert "64x64" not in message
    assert Sampler(samples, [entry(repeats=2)], 4, seed=7, accumulation=2).micro_batches_per_epoch == 12 + 2


def test_oversubscription_raises_repeats_unless_they_are_set():
    samples = samples_of("a", {(64, 64): 3})
    assert Sampler(samples, [entry()], 4, seed=7, oversubscribe=True).micro_batches_per_epoch == 1
    with pytest.raises(DataError, match="with repeats 1"):
        Sampler(samples, [entry(repeats=1)], 7, seed=7, oversubscribe=True)


def test_small_buckets_can_be_kept():
    sampler = Sampler(samples_of("a", {(64, 64): 9, (128, 64): 3}), [entry()], 4, seed=7, keep_small_buckets=True)
    assert sorted(len(batch) for batch in epoch_of(sampler, 0)) == [3, 4, 4]


def test_order_is_evenly_spread():
    first = np.array([permute(16, seed)[0] for seed in range(4000)])
    counts = np.bincount(first, minlength=16)
    assert counts.min() > 180 and counts.max() < 320
