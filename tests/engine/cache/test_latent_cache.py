"""Pictures: identical ones share a row, replaced ones are encoded alone, unusable ones are set aside."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowtuner.engine.cache.latents import LatentCache
from flowtuner.engine.cache.store import Store
from flowtuner.engine.data.images import load_pixels
from flowtuner.engine.data.sample import Plan
from flowtuner.errors import DataError


def pooled(pixels):
    return torch.nn.functional.avg_pool2d(pixels, 4)


def fill(cache, samples, encode=pooled, batch_size=4, write_rows=128, report=lambda done, total: None):
    return cache.encode_missing(
        samples,
        lambda: encode,
        device=torch.device("cpu"),
        batch_size=batch_size,
        write_rows=write_rows,
        report=report,
    )


@pytest.fixture
def cache(store):
    return LatentCache({"d": store}, "vae", torch.float32)


def test_cached_equals_uncached(cache, make_samples):
    samples = make_samples(9) + make_samples(5, size=(8, 16), start=20)
    report = fill(cache, samples)
    assert (report.total, report.hits, report.encoded, report.quarantined) == (14, 0, 14, ())
    for sample in samples:
        assert torch.equal(cache.read(sample), pooled(torch.from_numpy(load_pixels(sample))[None])[0])


def test_batches_never_mix_buckets(cache, make_samples):
    shapes = []

    def encode(pixels):
        shapes.append(tuple(pixels.shape))
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        return pooled(pixels)

    fill(
        cache,
        make_samples(5) + make_samples(3, size=(8, 16), start=20) + make_samples(1, size=(32, 32), start=40),
        encode,
    )
    assert sorted(shapes) == [(1, 3, 8, 16), (1, 3, 32, 32), (3, 3, 16, 8), (4, 3, 8, 16)]
    assert shapes[0] == (1, 3, 32, 32)


def test_second_time_nothing_is_opened(cache, make_samples):
    samples = make_samples(3)
    fill(cache, samples)
    again = LatentCache({"d": Store(cache.stores["d"].root)}, "vae", torch.float32)
    report = fill(again, samples, encode=None)
    assert (report.total, report.hits, report.encoded) == (3, 3, 0)


def test_replacing_one_picture_encodes_one(cache, make_samples):
    samples = make_samples(6)
    fill(cache, samples)
    changed = [*samples[:5], make_samples(1, start=9)[0]]
    assert fill(cache, changed).encoded == 1


def test_identical_pictures_share_a_row(cache, make_samples):
    one = make_samples(1)[0]
    report = fill(cache, [one, replace(one, path=one.path, captions=("other",))])
    assert (report.total, report.encoded, len(cache.stores["d"])) == (1, 1, 1)


def test_same_picture_in_another_crop_is_another_row(cache, make_samples):
    one = make_samples(1)[0]
    assert fill(cache, [one, replace(one, plan=Plan(1, (16, 8), (4, 0, 8, 8)))]).encoded == 2


@pytest.mark.parametrize("other", [("other", torch.float32), ("vae", torch.bfloat16)])
def test_weights_and_type_are_in_the_key(cache, make_samples, other):
    samples = make_samples(1)
    fill(cache, samples)
    assert not LatentCache(cache.stores, *other).has(samples[0])


def test_datasets_may_have_stores_of_their_own(tmp_path, make_samples):
    stores = {name: Store(tmp_path / name) for name in ("d", "e")}
    cache = LatentCache(stores, "vae", torch.float32)
    assert fill(cache, make_samples(2) + make_samples(3, dataset="e", start=10)).encoded == 5
    assert [len(stores[name]) for name in "de"] == [2, 3]


def test_pictures_that_vanish_or_change_are_set_aside(cache, make_samples):
    samples = make_samples(6)
    Path(samples[2].path).unlink()
    Path(samples[4].path).write_bytes(Path(samples[5].path).read_bytes())
    report = fill(cache, samples)
    assert report.encoded == 4 and len(cache.stores["d"]) == 4
    reasons = dict(report.quarantined)
    assert "cannot be read" in reasons[samples[2].path] and "changed since the scan" in reasons[samples[4].path]


def test_numbers_that_are_not_finite_are_set_aside(cache, make_samples):
    def encode(pixels):
        latents = pooled(pixels)
        latents[0, 0, 0, 0] = float("nan")
        return latents

    report = fill(cache, make_samples(6), encode, batch_size=3)
    assert report.encoded == 4 and len(report.quarantined) == 2
    assert "infinite or undefined numbers in float32" in report.quarantined[0][1]


def test_nothing_usable_is_an_error(cache, make_samples):
    samples = make_samples(2)
    for sample in samples:
        Path(sample.path).unlink()
    with pytest.raises(DataError, match="none of the 2 pictures can be encoded"):
        fill(cache, samples)


def test_a_stop_from_outside_keeps_what_was_encoded(cache, make_samples):
    def encode(pixels):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return pooled(pixels)

    calls = []
    samples = make_samples(20)
    with pytest.raises(KeyboardInterrupt):
        fill(cache, samples, encode, batch_size=2)
    assert len(Store(cache.stores["d"].root)) == 6
    assert fill(cache, samples).encoded == 14


def test_real_autoencoder_cached_equals_uncached(cache, make_samples):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(16,), norm_num_groups=8, latent_channels=4).eval()

    def encode(pixels):
        return vae.encode(pixels).latent_dist.mode()

    samples = make_samples(5, size=(32, 32))
    fill(cache, samples, encode, batch_size=2)
    with torch.inference_mode():
        for sample in samples:
            expected = encode(torch.from_numpy(load_pixels(sample))[None])[0]
            assert torch.allclose(cache.read(sample), expected, atol=1e-5)
