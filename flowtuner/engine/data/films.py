"""Films as training sees them: animated files or folders of frames, cut to a length and cropped as pictures are."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flowtuner.engine.data.files import PICTURE_SUFFIXES, FoundFile, find_files
from flowtuner.engine.data.images import (
    DECODE_ERRORS,
    Pixels,
    UnusableImageError,
    crop_image,
    explain_damage,
    read_bytes,
    to_unit,
)
from flowtuner.engine.data.sample import FilmPlan, Plan, Quarantined, Sample
from flowtuner.errors import DataError
from flowtuner.options.dataset import VideoSettings

ANIMATED_SUFFIXES = frozenset({".gif", ".webp", ".apng"})
CODED_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv"})
NEEDS_DECODER = (
    "it needs a video decoder, which is not part of the engine; turn it into an animated file or a folder of frames "
    "(ffmpeg -i NAME.mp4 -r 16 NAME/%05d.png)"
)
# A folder of frames is read as one piece: this mark, then each frame with its length before it.
MARK = b"FRAMES\0\0"
LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class FilmSettings:
    """How many frames of each film of a dataset are trained on."""

    frames: int
    minimum: int
    maximum: int | None = None
    by_length: bool = False
    interval: int = 1
    group: int = 1
    """Frames that share one latent: a film has one frame more than a multiple of it."""

    def cut(self, plan: Plan, length: int) -> FilmPlan | str:
        """The plan of a film with that many frames, or why it is left out."""
        if length < self.minimum:
            return f"it has {length} frames, and min_frames is {self.minimum}"
        if self.maximum and length > self.maximum:
            return f"it has {length} frames, and max_frames is {self.maximum}"
        count = self.frames
        if self.by_length:
            count = fit_frames(max(length // self.interval * self.interval, 1), self.group)
        return FilmPlan(plan.orientation, plan.resize, plan.crop, count)


def fit_frames(count: int, group: int) -> int:
    """The most frames up to `count` that an autoencoder takes: one, and whole groups behind it."""
    return (count - 1) // group * group + 1


def resolve_film(name: str, given: VideoSettings | None, group: int, usual: int) -> FilmSettings:
    """What a dataset entry says of its films, its gaps filled; DataError for a number that cannot be."""
    asked = given or VideoSettings()
    if asked.is_i2v:
        raise DataError(
            f"dataset {name}: video.is_i2v is not supported: films are drawn from text alone. Leave it out."
        )
    by_length = asked.bucket_strategy == "resolution_frames"
    frames = asked.num_frames or usual
    if not by_length and frames != fit_frames(frames, group):
        lower = fit_frames(frames, group)
        raise DataError(
            f"dataset {name}: video.num_frames {frames} cannot be: {group} frames share one latent, and the first has "
            f"one of its own. Set it to {lower} or {lower + group}."
        )
    minimum = asked.min_frames or (1 if by_length else frames)
    return FilmSettings(frames, minimum, asked.max_frames, by_length, asked.frame_interval or 1, group)


def find_films(folder: Path) -> Iterator[FoundFile | Quarantined]:
    """All films below a folder, in no order: animated files, and folders of frames."""
    top = str(folder.absolute())
    found = find_files(folder, PICTURE_SUFFIXES | ANIMATED_SUFFIXES | CODED_SUFFIXES)
    for path, group in groupby(found, key=lambda one: os.path.dirname(one.path)):
        frames: list[FoundFile] = []
        for one in group:
            suffix = os.path.splitext(one.path)[1].lower()
            if isinstance(one, Quarantined) or suffix in ANIMATED_SUFFIXES:
                yield one
            elif suffix in CODED_SUFFIXES:
                yield Quarantined(one.path, NEEDS_DECODER)
            elif path == top:
                yield Quarantined(one.path, "a single picture: the frames of a film need a folder of their own")
            else:
                frames.append(one)
        if frames:
            yield _join(path, frames)


def read_film(path: str) -> bytes:
    """The bytes of an animated file, or of all frames in a folder."""
    if not os.path.isdir(path):
        return read_bytes(path)
    try:
        names = sorted((name for name in os.listdir(path) if _is_frame(name)), key=_count_up)
    except OSError as error:
        raise UnusableImageError(f"it cannot be read: {error.strerror}") from error
    frames = [read_bytes(os.path.join(path, name)) for name in names]
    return b"".join([MARK, *(LENGTH.pack(len(frame)) + frame for frame in frames)])


def probe_film(data: bytes) -> list[Any]:
    """Hash, width, height, orientation and number of frames; every frame is decoded once."""
    sizes, count = set(), 0
    for frame in _decode(data):
        sizes.add(frame.size)
        count += 1
    if len(sizes) != 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise UnusableImageError(f"its frames are of several sizes: {listed}")
    width, height = sizes.pop()
    return [hashlib.sha256(data).hexdigest(), width, height, 1, count]


def load_frames(sample: Sample, plan: FilmPlan, read: Callable[[Sample], bytes] | None = None) -> Pixels:
    """The frames of a film's plan, float32 (3, frames, height, width) in [-1, 1]."""
    data = read(sample) if read else read_film(sample.path)
    if hashlib.sha256(data).hexdigest() != sample.content:
        raise UnusableImageError("it changed since the scan; start again to take the new film")
    frames = zip(range(plan.frames), _decode(data), strict=False)
    return np.ascontiguousarray(np.stack([to_unit(crop_image(frame, plan), plan) for _, frame in frames], axis=1))


def _join(path: str, frames: list[FoundFile]) -> FoundFile:
    names = sorted(os.path.basename(file.path) for file in frames)
    mark = zlib.crc32("\n".join(names).encode("utf-8", "surrogatepass"))
    sizes, changed, moved, _ = zip(*(file.stamp for file in frames), strict=True)
    return FoundFile(path, (sum(sizes), max(changed), max(moved), mark))


def _decode(data: bytes) -> Iterator[Image.Image]:
    try:
        if not data.startswith(MARK):
            yield from _turn_pages(Image.open(io.BytesIO(data)))
            return
        start = len(MARK)
        while start < len(data):
            (length,) = LENGTH.unpack_from(data, start)
            start += LENGTH.size
            image = Image.open(io.BytesIO(data[start : start + length]))
            image.load()
            yield image
            start += length
    except DECODE_ERRORS as error:
        raise UnusableImageError(explain_damage(error)) from error


def _turn_pages(image: Image.Image) -> Iterator[Image.Image]:
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        image.load()
        yield image.copy()


def _is_frame(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and suffix in PICTURE_SUFFIXES - ANIMATED_SUFFIXES


def _count_up(name: str) -> list[tuple[int, str]]:
    # Frame 10 comes after frame 9, whether or not they are numbered with zeros in front.
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
