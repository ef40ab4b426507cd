"""The arithmetic of aspect buckets: which size a picture is trained at and which part of it is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flowtuner.engine.data.order import fraction
from flowtuner.engine.data.sample import Plan, Size
from flowtuner.engine.data.settings import CropSettings

SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
MOST_SQUARES = 16


def turn_size(size: Size, orientation: int) -> Size:
    """The size of a picture after its EXIF orientation is applied."""
    return (size[1], size[0]) if orientation in SWAPPING_ORIENTATIONS else size


def find_exclusion(size: Size, settings: CropSettings) -> str | None:
    """Says why a picture of this (turned) size is to be left out, or nothing."""
    width, height = size
    aspect = width / height
    unit = "px on the short edge" if settings.by_edge else "megapixels"
    measured = _measure(size, settings)
    if settings.minimum is not None and measured < settings.minimum:
        return f"{width}x{height} is below minimum_image_size ({measured:g} of {settings.minimum:g} {unit})"
    if settings.minimum_aspect is not None and aspect < settings.minimum_aspect:
        return f"aspect ratio {aspect:.2f} is below minimum_aspect_ratio {settings.minimum_aspect:g}"
    if settings.maximum_aspect is not None and aspect > settings.maximum_aspect:
        return f"aspect ratio {aspect:.2f} is above maximum_aspect_ratio {settings.maximum_aspect:g}"
    if excess := _find_excess(size, settings):
        return excess
    if settings.max_upscale is not None:
        bucket = find_bucket(aspect, settings)
        scale = max(bucket[0] / width, bucket[1] / height)
        if scale > 1 + settings.max_upscale:
            return f"{width}x{height} would be enlarged {scale:.2f} times, above max_upscale_threshold"
    return None


def _find_excess(size: Size, settings: CropSettings) -> str | None:
    # A picture of one row becomes a bucket of gigabytes, which would end the whole run.
    if settings.crop and settings.aspect != "preserve":
        return None
    bucket, square = find_bucket(size[0] / size[1], settings), find_bucket(1.0, settings)
    if bucket[0] * bucket[1] <= MOST_SQUARES * square[0] * square[1]:
        return None
    return (
        f"{size[0]}x{size[1]} is too long: at {bucket[0]}x{bucket[1]} it would have more than {MOST_SQUARES} times "
        "the pixels of a square one; cut it up"
    )


def make_plan(size: Size, orientation: int, content: str, settings: CropSettings, face: Sequence[float] = ()) -> Plan:
    """Plans the resize and crop of one picture: a pure function of its size, its bytes' hash and the settings.

    `face` is the middle of its largest face, if it has one: across and down, as shares of the (turned) picture.
    """
    turned = turn_size(size, orientation)
    aspect = _choose_aspect(turned[0] / turned[1], content, settings)
    bucket = find_bucket(aspect, settings)
    resize = _cover(_before_crop(turned, settings) if settings.crop else None, turned, bucket)
    slack = resize[0] - bucket[0], resize[1] - bucket[1]
    left, top = _place(slack, content, settings)
    if settings.crop and settings.style == "face" and face:
        left, top = (
            min(room, max(0, round(share * whole - kept / 2)))
            for share, whole, kept, room in zip(face, resize, bucket, slack, strict=True)
        )
    return Plan(orientation, resize, (left, top, *bucket))


def find_bucket(aspect: float, settings: CropSettings) -> Size:
    """The aligned width and height that pictures of this aspect ratio are trained at."""
    aspect = round(aspect, settings.rounding) or aspect
    if settings.by_edge:
        short = _align(settings.resolution, settings.alignment)
        long = _align(short * max(aspect, 1 / aspect), settings.alignment)
        return (long, short) if aspect >= 1 else (short, long)
    # The edge is aligned first: 1.0 megapixel means a square of 1024, and other aspects keep that area.
    edge = _align(math.sqrt(settings.resolution * 1e6), settings.alignment)
    root = math.sqrt(aspect)
    return _align(edge * root, settings.alignment), _align(edge / root, settings.alignment)


def _choose_aspect(aspect: float, content: str, settings: CropSettings) -> float:
    if not settings.crop or settings.aspect == "preserve":
        return aspect
    if settings.aspect == "square":
        return 1.0
    if settings.aspect == "closest":
        return min((choice for choice, _ in settings.aspect_choices), key=lambda choice: abs(choice - aspect))
    target = fraction("aspect", settings.seed, content) * sum(weight for _, weight in settings.aspect_choices)
    for choice, weight in settings.aspect_choices:
        target -= weight
        if target < 0:
            return choice
    return settings.aspect_choices[-1][0]


def _before_crop(size: Size, settings: CropSettings) -> Size:
    # Without both limits a large picture is cropped at its own scale, as SimpleTuner documents.
    if settings.maximum is None or settings.downsample is None:
        return size
    measured = _measure(size, settings)
    if measured <= settings.maximum:
        return size
    ratio = settings.downsample / measured
    scale = ratio if settings.by_edge else math.sqrt(ratio)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _cover(wanted: Size | None, size: Size, bucket: Size) -> Size:
    if wanted and wanted[0] >= bucket[0] and wanted[1] >= bucket[1]:
        return wanted
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    return max(bucket[0], round(size[0] * scale)), max(bucket[1], round(size[1] * scale))


def _place(slack: Size, content: str, settings: CropSettings) -> Size:
    if not settings.crop or settings.style in ("center", "centre", "face"):
        return slack[0] // 2, slack[1] // 2
    if settings.style == "corner":
        return 0, 0
    return (
        int(fraction("left", settings.seed, content) * (slack[0] + 1)),
        int(fraction("top", settings.seed, content) * (slack[1] + 1)),
    )


def _measure(size: Size, settings: CropSettings) -> float:
    return float(min(size)) if settings.by_edge else size[0] * size[1] / 1e6


def _align(value: float, alignment: int) -> int:
    return max(alignment, round(value / alignment) * alignment)
