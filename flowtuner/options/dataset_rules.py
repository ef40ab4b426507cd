"""Rules inside a dataset entry and between the entries of a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from flowtuner.options.dataset import MEDIA_TYPES, TRAINED_TYPES, AspectBucket, DatasetEntry
from flowtuner.options.dataset_places import check_place

MAX_MEGAPIXELS = 20
MIN_PIXELS = 16
MEGAPIXEL_LIMIT = 10

# key, problem, allowed, suggestion
Conflict = tuple[Any, ...]


def check_entry(entry: DatasetEntry) -> Iterator[Conflict]:
    """What one entry contradicts in itself."""
    yield from check_place(entry)
    yield from _check_schedule(entry)
    if entry.dataset_type in MEDIA_TYPES:
        yield from _check_sizes(entry)
        yield from _check_crop(entry)
        yield from _check_captions(entry)


def check_entries(entries: Sequence[DatasetEntry]) -> Iterator[Conflict]:
    """What entries contradict among each other; each conflict starts with the id of the entry it is about."""
    yield from _check_ids(entries)
    active = [entry for entry in entries if not entry.disabled]
    if not any(entry.dataset_type in TRAINED_TYPES for entry in active):
        yield None, "", "holds no dataset to train on", "an entry with dataset_type image"
    yield from _check_defaults(active)
    yield from _check_links(entries)
    yield from _check_sources(active)
    trained = _trained(active)
    if trained and all((entry.start_epoch or 1) > 1 or (entry.start_step or 0) > 1 for entry in trained):
        for entry in trained[:1]:
            key = "start_epoch" if (entry.start_epoch or 1) > 1 else "start_step"
            yield entry.id, key, "leaves the run without a dataset at its start", "one dataset active from the start"


def _trained(entries: Sequence[DatasetEntry]) -> list[DatasetEntry]:
    return [entry for entry in entries if entry.dataset_type in TRAINED_TYPES]


def _check_schedule(entry: DatasetEntry) -> Iterator[Conflict]:
    for start, end in (("start_epoch", "end_epoch"), ("start_step", "end_step")):
        first, last = getattr(entry, start), getattr(entry, end)
        if first and last and last < first:
            yield end, f"lies before {start}={first}", f"from {first}"
    video = entry.video
    if video and video.num_frames and video.min_frames and video.min_frames < video.num_frames:
        yield (
            "video",
            f"has min_frames={video.min_frames} below num_frames={video.num_frames}",
            "min_frames >= num_frames",
        )


def _check_sizes(entry: DatasetEntry) -> Iterator[Conflict]:
    kind, size = entry.resolution_type, entry.resolution
    if kind == "area" and size and size >= MAX_MEGAPIXELS:
        yield "resolution", "looks like pixels, but resolution_type=area means megapixels", "", "1.0 is 1024 x 1024."
    if kind in ("pixel", "pixel_area") and size and size < MIN_PIXELS:
        yield "resolution", f"looks like megapixels, but resolution_type={kind} means pixels", f"from {MIN_PIXELS}"
    smallest, largest, target = (
        _megapixels(value, kind)
        for value in (entry.minimum_image_size, entry.maximum_image_size, entry.target_downsample_size)
    )
    if largest and not target:
        yield "maximum_image_size", "needs target_downsample_size too", "both or neither"
    if smallest and largest and smallest > largest:
        yield "minimum_image_size", f"is larger than maximum_image_size={entry.maximum_image_size:g}"
    if target and largest and target > largest:
        yield "target_downsample_size", f"is larger than maximum_image_size={entry.maximum_image_size:g}"
    narrow, wide = entry.minimum_aspect_ratio, entry.maximum_aspect_ratio
    if narrow and wide and narrow > wide:
        yield "minimum_aspect_ratio", f"is larger than maximum_aspect_ratio={wide:g}"


def _megapixels(size: float | None, kind: str | None) -> float | None:
    # With pixel_area, sizes up to 10 can only be megapixels: nobody trains on ten pixels.
    return size**2 / 1e6 if size and kind == "pixel_area" and size > MEGAPIXEL_LIMIT else size


def _check_crop(entry: DatasetEntry) -> Iterator[Conflict]:
    buckets = entry.crop_aspect_buckets
    if entry.crop and entry.crop_aspect in ("closest", "random") and not buckets:
        yield "crop_aspect", "needs crop_aspect_buckets too", "a list of aspect ratios such as [1.0, 0.75, 1.33]"
    if any((bucket.aspect_bucket if isinstance(bucket, AspectBucket) else bucket) <= 0 for bucket in buckets or ()):
        yield "crop_aspect_buckets", "has an aspect ratio that is not above 0", "numbers above 0"
    if buckets and not any(bucket.weight if isinstance(bucket, AspectBucket) else 1 for bucket in buckets):
        yield "crop_aspect_buckets", "has no weight above 0", "at least one weight above 0"


def _check_captions(entry: DatasetEntry) -> Iterator[Conflict]:
    if entry.dataset_type not in TRAINED_TYPES:
        return
    wants_prompt = (
        entry.caption_strategy == "instanceprompt" or entry.only_instance_prompt or entry.prepend_instance_prompt
    )
    if wants_prompt and not entry.instance_prompt:
        key = "caption_strategy" if entry.caption_strategy == "instanceprompt" else "instance_prompt"
        yield key, "needs an instance_prompt", "a text or a list of texts"
    if entry.caption_strategy == "parquet" and entry.metadata_backend == "discovery":
        advice = "Or write captions to .txt files and use textfile."
        yield "caption_strategy", "needs metadata_backend=parquet", "", advice
    else:
        yield from _check_table(entry)


def _check_table(entry: DatasetEntry) -> Iterator[Conflict]:
    strategy = entry.caption_strategy
    if entry.only_instance_prompt or strategy == entry.type:
        return
    if strategy == "huggingface":
        yield "caption_strategy", "needs type=huggingface"
    if strategy in ("parquet", "csv", "jsonl"):
        path = entry.parquet.path if entry.parquet and entry.parquet.path else entry.csv_file
        if path is None:
            yield (
                "caption_strategy",
                "needs a table of captions",
                '"parquet": {"path": ..., "filename_column": ..., "caption_column": ...}',
            )
        elif not os.path.isfile(path):
            yield "parquet", f"names {path}, which does not exist", "an existing table"
    if entry.type in ("csv", "huggingface") and strategy in ("filename", "textfile"):
        yield "caption_strategy", f"has no files to go by with type={entry.type}", f"{entry.type} or instanceprompt"


def _check_ids(entries: Sequence[DatasetEntry]) -> Iterator[Conflict]:
    for identity, count in Counter(entry.id for entry in entries).items():
        if count > 1:
            yield identity, "id", f"is used by {count} entries", "a unique name for each"


def _check_defaults(entries: Sequence[DatasetEntry]) -> Iterator[Conflict]:
    texts = [entry for entry in entries if entry.dataset_type == "text_embeds"]
    defaults = [entry for entry in texts if entry.default]
    for entry in defaults[1:]:
        yield entry.id, "default", f"is true here and in {defaults[0].id}", "one text_embeds entry with default true"
    if len(texts) > 1 and not defaults:
        yield texts[0].id, "default", "is true in none of the text_embeds entries", "true in exactly one of them"


def _check_links(entries: Sequence[DatasetEntry]) -> Iterator[Conflict]:
    kinds = {
        "conditioning_data": ("conditioning", "eval"),
        "source_dataset_id": MEDIA_TYPES,
        "text_embeds": ("text_embeds",),
        "image_embeds": ("image_embeds",),
        "conditioning_image_embeds": ("conditioning_image_embeds",),
        "s2v_datasets": ("audio", "video"),
    }
    for entry in entries:
        if entry.disabled:
            continue
        for key, allowed in kinds.items():
            for identity in as_ids(getattr(entry, key)):
                yield from _check_link(entry, key, identity, allowed, entries)


def _check_link(
    entry: DatasetEntry, key: str, identity: str, allowed: Sequence[str], entries: Sequence[DatasetEntry]
) -> Iterator[Conflict]:
    target = next((other for other in entries if other.id == identity), None)
    fitting = ", ".join(other.id for other in entries if other.dataset_type in allowed and not other.disabled)
    if target is None:
        yield entry.id, key, f"names {identity!r}, which no entry has as its id", fitting
    elif target.disabled:
        yield entry.id, key, f"names {identity!r}, which is disabled", fitting
    elif target.dataset_type not in allowed:
        yield entry.id, key, f"names {identity!r}, which has dataset_type {target.dataset_type}", fitting


def _check_sources(entries: Sequence[DatasetEntry]) -> Iterator[Conflict]:
    named = {identity for entry in entries for identity in as_ids(entry.conditioning_data)}
    for entry in entries:
        strict = entry.conditioning_type in ("reference_strict", "controlnet", "mask")
        if strict and entry.dataset_type == "conditioning" and entry.id not in named and not entry.source_dataset_id:
            yield (
                entry.id,
                "conditioning_type",
                "needs a source: no entry names this one in conditioning_data",
                "",
                f"Add conditioning_data: {entry.id!r} to the dataset it belongs to, or set source_dataset_id here.",
            )


def as_ids(value: str | list[str] | None) -> tuple[str, ...]:
    """One id or a list of ids as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value or ())
