"""Bucket arithmetic against SimpleTuner's own figures, and the crop rules."""

import pytest

from flowtuner.engine.data.buckets import find_bucket, find_exclusion, make_plan
from flowtuner.engine.data.settings import CropSettings, resolve_dataset
from flowtuner.errors import DataError


@pytest.mark.parametrize(
    ("megapixels", "size", "bucket"),
    [
        (1.048576, (3000, 2000), (1280, 832)),
        (1.048576, (2000, 3000), (832, 1280)),
        (1.048576, (800, 600), (1152, 896)),
        (1.0, (4000, 1000), (2048, 512)),
        (0.25, (800, 600), (576, 448)),
        (1.048576, (500, 500), (1024, 1024)),
    ],
)
def test_area_buckets(megapixels, size, bucket):
    assert find_bucket(size[0] / size[1], CropSettings(by_edge=False, resolution=megapixels)) == bucket


@pytest.mark.parametrize(
    ("size", "bucket"), [((1234, 777), (832, 512)), ((777, 1234), (512, 832)), ((900, 900), (512, 512))]
)
def test_edge_buckets(size, bucket):
    assert find_bucket(size[0] / size[1], CropSettings(by_edge=True, resolution=512)) == bucket


def test_alignment_is_an_option():
    assert find_bucket(1.0, CropSettings(by_edge=True, resolution=32, alignment=8)) == (32, 32)
    assert find_bucket(1.5, CropSettings(by_edge=True, resolution=32, alignment=8)) == (48, 32)


@pytest.mark.parametrize("size", [(3000, 2000), (10, 4000), (1, 1), (64, 63), (6000, 5)])
@pytest.mark.parametrize("values", [{}, {"crop": True}, {"crop": True, "aspect": "preserve"}])
@pytest.mark.parametrize("by_edge", [True, False])
def test_crop_lies_inside_the_resized_picture(size, values, by_edge):
    settings = CropSettings(by_edge=by_edge, resolution=512 if by_edge else 0.25, **values)
    plan = make_plan(size, 1, "content", settings)
    left, top, width, height = plan.crop
    assert left >= 0 and top >= 0 and left + width <= plan.resize[0] and top + height <= plan.resize[1]
    assert width % 64 == 0 and height % 64 == 0


def test_uncropped_pictures_lose_only_the_remainder():
    plan = make_plan((3000, 2000), 1, "content", CropSettings(by_edge=False, resolution=1.048576))
    assert (plan.resize, plan.crop) == ((1280, 853), (0, 10, 1280, 832))


def test_large_picture_is_cropped_at_its_own_scale_without_limits():
    plan = make_plan((4096, 4096), 1, "content", CropSettings(True, 1024, crop=True, style="center"))
    assert (plan.resize, plan.crop) == ((4096, 4096), (1536, 1536, 1024, 1024))


@pytest.mark.parametrize(
    ("by_edge", "limits", "resize"),
    [
        (True, (1024, 1200), (1800, 1200)),
        (True, (2500, 1200), (3000, 2000)),
        (False, (2.0, 1.5), (1500, 1000)),
    ],
)
def test_large_picture_is_reduced_first_with_both_limits(by_edge, limits, resize):
    settings = CropSettings(by_edge, 512 if by_edge else 0.25, crop=True, maximum=limits[0], downsample=limits[1])
    assert make_plan((3000, 2000), 1, "content", settings).resize == resize


def test_small_picture_is_enlarged_to_cover_the_crop():
    plan = make_plan((100, 50), 1, "content", CropSettings(True, 512, crop=True))
    assert plan.resize == (1024, 512)
    assert plan.bucket == (512, 512)


def test_orientation_turns_the_bucket():
    assert make_plan((2000, 3000), 6, "content", CropSettings(True, 512)).bucket == (768, 512)


def test_crop_aspects():
    settings = {"crop": True, "aspect_choices": ((1.0, 1.0), (0.5, 0.0), (2.0, 1.0))}
    assert make_plan((1900, 1000), 1, "a", CropSettings(True, 512, aspect="closest", **settings)).bucket == (1024, 512)
    seen = {
        make_plan((900, 900), 1, str(n), CropSettings(True, 512, aspect="random", **settings)).bucket for n in range(40)
    }
    assert seen == {(512, 512), (1024, 512)}
    assert make_plan((900, 600), 1, "a", CropSettings(True, 512, crop=True, aspect="preserve")).bucket == (768, 512)


def test_crop_styles():
    def crop(style, seed=0, content="a"):
        return make_plan((900, 700), 1, content, CropSettings(True, 512, crop=True, style=style, seed=seed)).crop[:2]

    assert crop("corner") == (0, 0)
    assert crop("center") == crop("centre") == (194, 94)
    assert crop("random") == crop("random")
    assert len({crop("random", seed) for seed in range(20)}) > 10
    assert len({crop("random", 0, str(content)) for content in range(20)}) > 10


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"minimum": 700}, "below minimum_image_size"),
        ({"minimum_aspect": 1.5}, "below minimum_aspect_ratio"),
        ({"maximum_aspect": 1.0}, "above maximum_aspect_ratio"),
        ({"max_upscale": 0.0, "resolution": 1024}, "enlarged 1.71 times"),
        ({}, None),
    ],
)
def test_exclusions(settings, reason):
    found = find_exclusion((800, 600), CropSettings(**{"by_edge": True, "resolution": 512} | settings))
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(("size", "values"), [((5000, 1), {}), ((20, 8000), {"crop": True, "aspect": "preserve"})])
def test_a_picture_too_long_for_any_memory_is_left_out(size, values):
    settings = CropSettings(by_edge=True, resolution=512, **values)
    assert "is too long" in find_exclusion(size, settings)
    assert find_exclusion(size, CropSettings(by_edge=True, resolution=512, crop=True)) is None  # a square of it will do
    assert find_exclusion((4000, 400), settings) is None
    assert find_exclusion(size, CropSettings(by_edge=False, resolution=1.0)) is None  # areas bound themselves


def test_units(make_entry, make_config):
    entry = make_entry(resolution=1024, resolution_type="pixel_area", minimum_image_size=512, maximum_image_size=4)
    crop = resolve_dataset(entry, make_config(target_downsample_size=2048)).crop
    assert (crop.resolution, crop.minimum, crop.maximum, crop.downsample) == (1.048576, 0.262144, 4.0, 4.194304)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"caption_strategy": "webshart"}, "caption_strategy 'webshart' is not supported"),
        ({"caption_strategy": "parquet"}, "caption_strategy parquet needs a table"),
        ({"caption_strategy": "instanceprompt"}, "instance_prompt is missing"),
        ({"crop": True, "crop_aspect": "closest"}, "needs crop_aspect_buckets"),
    ],
)
def test_refusals(make_entry, make_config, values, message):
    with pytest.raises(DataError, match=message):
        resolve_dataset(make_entry(**values), make_config())
