"""Pictures as training sees them: decoded, turned, resized, cropped and scaled to [-1, 1]."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from flowtuner.engine.data.sample import Plan, Sample
from flowtuner.errors import DataError

Pixels = npt.NDArray[np.float32]

ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Decoding to a fraction of the size is what JPEG is quick at; twice the wanted size leaves Lanczos enough to work with.
DRAFT_GAP = 2.0
LARGEST_BYTE, LARGEST_WORD = 255, 65535
REDUCING_GAP = 3.0

# What Pillow's many decoders raise on files that are not what they claim.
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnusableImageError(DataError):
    """One picture cannot be trained on; the text says why, without its path."""


@dataclass(frozen=True)
class ImageFacts:
    """What a plan needs to know about a picture, as it is stored (not turned yet)."""

    content: str
    width: int
    height: int
    orientation: int
    face: tuple[float, ...] = ()
    """The middle of the largest face, as shares of the turned picture; empty if there is none or nobody asked."""


@contextlib.contextmanager
def quiet_decoding() -> Iterator[None]:
    """Silences Pillow's remarks on odd but usable files; to be entered before threads are started."""
    with warnings.catch_warnings():
        for category in (Image.DecompressionBombWarning, UserWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        yield


def probe_image(data: bytes) -> ImageFacts:
    """Decodes a picture's bytes once, so that a damaged one is found before training."""
    try:
        image = Image.open(io.BytesIO(data))
        size = image.size
        # The draft still reads every byte: a truncated file is found at an eighth of the cost.
        is_draft = image.draft("RGB", (1, 1)) is not None
        image.load()
        width, height = size if is_draft else image.size
    except DECODE_ERRORS as error:
        raise UnusableImageError(explain_damage(error)) from error
    if width < 1 or height < 1:
        raise UnusableImageError(f"it has no pixels ({width}x{height})")
    if image.mode == "F" or (image.mode == "I" and _brightest(image) > LARGEST_WORD):
        raise UnusableImageError(
            "it holds 32-bit numbers, and which of them is white is not known; save it with 8 bits"
        )
    return ImageFacts(hashlib.sha256(data).hexdigest(), width, height, _read_orientation(image))


def load_pixels(sample: Sample, read: Callable[[Sample], bytes] | None = None) -> Pixels:
    """The pixels of a sample's bucket, float32 (3, height, width) in [-1, 1]."""
    data = read(sample) if read else read_bytes(sample.path)
    if hashlib.sha256(data).hexdigest() != sample.content:
        raise UnusableImageError("it changed since the scan; start again to take the new picture")
    return np.ascontiguousarray(to_unit(_render(data, sample.plan), sample.plan))


def to_unit(image: Image.Image, plan: Plan) -> Pixels:
    """A cropped picture as float32 (3, height, width) in [-1, 1]."""
    width, height = plan.bucket
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, 3)
    return (pixels / 127.5 - 1.0).transpose(2, 0, 1)


def open_turned(data: bytes, orientation: int, most: int) -> Image.Image:
    """A picture as it is meant to be seen, reduced to about `most` pixels on its longer edge."""
    try:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (most, most))
        image.load()
        image = to_rgb(image)
        if orientation in TURNS:
            image = image.transpose(TURNS[orientation])
        image.thumbnail((most, most))
    except DECODE_ERRORS as error:
        raise UnusableImageError(explain_damage(error)) from error
    return image


def read_bytes(path: str) -> bytes:
    """A file's bytes, or why they cannot be had."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableImageError(f"it cannot be read: {error.strerror}") from error


def explain_damage(error: BaseException) -> str:
    """Why a picture could not be decoded, in words for the user."""
    if isinstance(error, Image.DecompressionBombError):
        return "it has too many pixels (more than 178 million); make it smaller"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture that can be decoded"
    return f"it is damaged: {error or type(error).__name__}"


def _render(data: bytes, plan: Plan) -> Image.Image:
    resize = plan.resize if plan.orientation < 5 else plan.resize[::-1]
    try:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (round(resize[0] * DRAFT_GAP), round(resize[1] * DRAFT_GAP)))
        image.load()
        return crop_image(image, plan)
    except DECODE_ERRORS as error:
        raise UnusableImageError(explain_damage(error)) from error


def crop_image(image: Image.Image, plan: Plan) -> Image.Image:
    """A decoded picture as its plan wants it: RGB, turned, resized and cropped."""
    left, top, width, height = plan.crop
    image = to_rgb(image)
    if plan.orientation in TURNS:
        image = image.transpose(TURNS[plan.orientation])
    # Only the part that stays is resized.
    across, down = image.width / plan.resize[0], image.height / plan.resize[1]
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return image.resize((width, height), Image.Resampling.LANCZOS, _clip(box, image.size), REDUCING_GAP)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as RGB: transparency on white, 16 bits scaled to 8."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and _brightest(image) > LARGEST_BYTE):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _brightest(image: Image.Image) -> int:
    return int(np.asarray(image).max())


def _clip(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    # Rounding may reach a hair beyond the edge, which Pillow refuses.
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(size[0])), min(box[3], float(size[1]))


def _read_orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except DECODE_ERRORS:
        return 1
    return value if value in TURNS else 1
