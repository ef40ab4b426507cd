"""What a scan finds: samples with their crop plan, and what was set aside and why."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a picture becomes training pixels: turn by its EXIF orientation, resize, crop."""

    orientation: int
    resize: Size
    crop: tuple[int, int, int, int]

    @property
    def bucket(self) -> Size:
        """Width and height of the pixels that are trained on."""
        return self.crop[2], self.crop[3]

    @property
    def shape(self) -> tuple[int, ...]:
        """What pictures of one batch have in common."""
        return self.bucket

    @property
    def identity(self) -> tuple[object, ...]:
        """What decides which pixels are made of a file."""
        return self.orientation, self.resize, self.crop

    def __str__(self) -> str:
        left, top, width, height = self.crop
        turned = f"orientation {self.orientation}, " if self.orientation != 1 else ""
        return f"{turned}resize {self.resize[0]}x{self.resize[1]}, crop {width}x{height}+{left}+{top}"


@dataclass(frozen=True, slots=True)
class FilmPlan(Plan):
    """How a film becomes training pixels: its first frames, each cut as a picture is."""

    frames: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Width, height and number of frames."""
        return *self.bucket, self.frames

    @property
    def identity(self) -> tuple[object, ...]:
        """What decides which pixels are made of a file."""
        return self.orientation, self.resize, self.crop, self.frames

    def __str__(self) -> str:
        return f"{Plan.__str__(self)}, {self.frames} frames"


@dataclass(frozen=True, slots=True)
class Sample:
    """One usable picture of one dataset."""

    dataset_id: str
    path: str
    content: str
    captions: tuple[str, ...]
    plan: Plan
    references: tuple[Sample, ...] = ()
    """The pictures it is to be drawn after, one of each conditioning dataset."""

    @property
    def bucket(self) -> Size:
        """Width and height of the pixels that are trained on."""
        return self.plan.bucket

    @property
    def shapes(self) -> Shapes:
        """The sizes of everything that is stacked in a batch: the picture's, then its references'."""
        return self.plan.shape, *(reference.plan.shape for reference in self.references)

    @property
    def identity(self) -> bytes:
        """Everything of it that decides what is trained, the same on every machine."""
        own = repr((self.dataset_id, self.content, self.captions, self.plan))
        return (own + "".join(repr((one.dataset_id, one.content, one.plan)) for one in self.references)).encode()


@dataclass(frozen=True)
class Quarantined:
    """A file that is left out, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Scan:
    """Everything found in the datasets of a run, sorted by dataset and path."""

    samples: Sequence[Sample]
    quarantined: tuple[Quarantined, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of everything that decides what the n-th micro batch holds; the same on every machine."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(sample.identity)
        return digest.hexdigest()
