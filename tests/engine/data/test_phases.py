"""Schedules of datasets: which are in use when, in a sequence that any number may be asked of."""

import random
from collections import Counter

import pytest

from flowtuner.engine.data.phases import share_by_length, share_evenly
from flowtuner.engine.data.sample import Plan, Sample
from flowtuner.engine.data.sampler import Sampler
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry


def samples_of(name, count):
    return [Sample(name, f"/{name}/{n}", f"{n}", ("x",), Plan(1, (8, 8), (0, 0, 8, 8))) for n in range(count)]


def make(a=None, b=None, accumulation=1, **values):
    entries = [DatasetEntry(id="a", **a or {}), DatasetEntry(id="b", **b or {})]
    samples = samples_of("a", 12) + samples_of("b", 8)
    return Sampler(samples, entries, 2, seed=3, accumulation=accumulation, keep_small_buckets=True, **values)


def names(sampler, numbers):
    return "".join(sampler.batch(n)[0].sample.dataset_id for n in numbers)


def test_steps_count_from_one_and_end_with_the_last():
    sampler = make(a={"end_step": 7}, b={"start_step": 4}, accumulation=3)
    assert set(names(sampler, range(9))) == {"a"}
    assert set(names(sampler, range(9, 21))) == {"a", "b"}
    assert set(names(sampler, range(21, 60))) == {"b"}


def test_epochs_count_from_one_and_end_with_the_last():
    sampler = make(a={"end_epoch": 3}, b={"start_epoch": 2})
    first, second, third = range(6), range(6, 16), range(16, 26)
    assert names(sampler, first) == "aaaaaa"
    assert Counter(names(sampler, second)) == Counter(names(sampler, third)) == {"a": 6, "b": 4}
    assert set(names(sampler, range(26, 40))) == {"b"}
    assert [sampler.micro_batches_in(epochs) for epochs in range(6)] == [0, 6, 16, 26, 30, 34]


def test_a_set_goes_through_all_of_its_samples_whatever_comes_and_goes_beside_it():
    sampler = make(b={"start_step": 4, "end_step": 9})
    drawn = [draw.sample.path for n in range(60) for draw in sampler.batch(n) if draw.sample.dataset_id == "a"]
    passes = [drawn[start : start + 12] for start in range(0, len(drawn) - 11, 12)]
    assert len(passes) > 3 and all(len(set(one)) == 12 for one in passes)


def test_any_batch_is_the_same_in_any_order_of_asking():
    sampler = make(a={"end_epoch": 3}, b={"start_step": 5, "end_step": 31})
    numbers = list(range(26))
    expected = {n: sampler.batch(n) for n in numbers}
    random.Random(0).shuffle(numbers)
    assert {n: sampler.batch(n) for n in numbers} == expected


def test_a_run_whose_data_end_before_it_is_refused():
    sampler = make(a={"end_step": 5}, b={"end_step": 3})
    assert sampler.batch(4)
    with pytest.raises(DataError, match="no dataset is in use in micro batch 6"):
        sampler.batch(5)
    assert make(a={"end_step": 2}, b={"start_step": 4}).batch(3)


def test_sets_are_shared_by_size_or_evenly():
    assert share_by_length([6, 4], [1.0, 0.5], [True, True]) == [6, 2]
    assert share_by_length([6, 4], [1.0, 0.5], [False, True]) == [0, 2]
    assert share_evenly([90, 10], [1.0, 1.0], [True, True]) == [50, 50]
    assert share_evenly([90, 10], [3.0, 1.0], [True, True]) == [75, 25]
    assert share_evenly([90, 10], [3.0, 1.0], [False, True]) == [0, 10]
    assert share_evenly([90, 10], [3.0, 1.0], [False, False]) == [0, 0]
    assert Counter(names(make(evenly=True), range(10))) == {"a": 5, "b": 5}


def test_random_crops_are_renewed_with_every_pass():
    plan = Plan(1, (40, 30), (3, 4, 8, 8))
    reference = Sample("r", "/r", "r", (), plan)
    samples = [Sample("a", f"/{n}", f"{n}", ("x",), plan, (reference,)) for n in range(4)]
    sampler = Sampler(samples, [DatasetEntry(id="a")], 4, seed=1, renewed=frozenset({"a"}))
    crops = [{draw.sample.path: draw.sample.plan.crop for draw in sampler.batch(n)} for n in range(4)]
    assert set(crops[0].values()) == {plan.crop}
    assert len({crop for one in crops for crop in one.values()}) > 8
    assert all(
        0 <= left <= 32 and 0 <= top <= 22 and size == [8, 8] for one in crops for left, top, *size in one.values()
    )
    (draw, *_) = sampler.batch(2)
    assert draw.references[0].plan == draw.sample.plan
    assert sampler.batch(2) == sampler.batch(2)
