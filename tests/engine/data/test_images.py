"""Pixels: orientation, colour modes, crops, and every kind of broken file."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from flowtuner.engine.data.images import UnusableImageError, load_pixels, probe_image, quiet_decoding
from flowtuner.engine.data.sample import Plan, Sample


def sample_of(path, plan=None):
    facts = probe_image(path.read_bytes())
    size = (facts.height, facts.width) if facts.orientation > 4 else (facts.width, facts.height)
    return Sample("d", str(path), facts.content, ("",), plan or Plan(facts.orientation, size, (0, 0, *size)))


def as_bytes(pixels):
    return np.rint((pixels.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(draw, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = draw("turned.png", size=(24, 16), exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(as_bytes(load_pixels(sample_of(path))), expected)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_orientation_is_applied_once_in_every_format(tmp_path, draw, suffix, orientation):
    with Image.open(draw("noise.png", size=(6, 4))) as noise:
        picture = noise.resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"turned.{suffix}", exif=exif, quality=95)
    picture.save(tmp_path / "plain.png", exif=exif)
    with Image.open(tmp_path / "plain.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    found = as_bytes(load_pixels(sample_of(tmp_path / f"turned.{suffix}"))).astype(int)
    assert found.shape == expected.shape and np.abs(found - expected).mean() < 6


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_formats(draw, suffix):
    path = draw(f"picture.{suffix}", size=(48, 32))
    pixels = load_pixels(sample_of(path))
    assert pixels.shape == (3, 32, 48) and pixels.dtype == np.float32 and pixels.flags.c_contiguous
    assert -1 <= pixels.min() < pixels.max() <= 1


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("P", (8, 8), 0), (0, 0, 0)),
        (Image.fromarray(np.full((8, 8), 0x8012, dtype=np.uint16)), (128, 128, 128)),
    ],
)
def test_modes_become_rgb(tmp_path, image, expected):
    image.save(tmp_path / "mode.png")
    assert tuple(as_bytes(load_pixels(sample_of(tmp_path / "mode.png")))[0, 0]) == expected


def test_crop_takes_the_planned_part(draw):
    path = draw("picture.png", size=(40, 30))
    whole = as_bytes(load_pixels(sample_of(path)))
    part = as_bytes(load_pixels(sample_of(path, Plan(1, (40, 30), (5, 3, 16, 8)))))
    assert np.array_equal(part, whole[3:11, 5:21])


def test_resize_of_a_part_equals_the_part_of_the_resize(draw):
    path = draw("smooth.png", size=(40, 30))
    with Image.open(path) as image:
        smooth = image.resize((400, 300))
    smooth.save(path)
    whole = as_bytes(load_pixels(sample_of(path, Plan(1, (200, 150), (0, 0, 200, 150))))).astype(int)
    part = as_bytes(load_pixels(sample_of(path, Plan(1, (200, 150), (33, 21, 64, 64))))).astype(int)
    assert np.abs(part - whole[21:85, 33:97]).max() <= 1


def test_jpeg_draft_is_near_the_full_decode(tmp_path, draw):
    path = draw("photo.png", size=(40, 30))
    with Image.open(path) as image:
        image.resize((1600, 1200), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg", quality=95)
    pixels = as_bytes(load_pixels(sample_of(tmp_path / "photo.jpg", Plan(1, (200, 150), (0, 0, 200, 150))))).astype(int)
    with Image.open(tmp_path / "photo.jpg") as image:
        full = np.asarray(image.resize((200, 150), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels - full).mean() < 1.0


def damaged_files():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    png = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + png[24:29]
    bomb = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    return {
        "truncated png": (png[: len(png) // 2], "damaged"),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], "damaged"),
        "flipped bits": (png[:200] + bytes(byte ^ 255 for byte in png[200:260]) + png[260:], "damaged"),
        "header only": (png[:33], "not a picture"),
        "text": (b"this is no picture", "not a picture"),
        "html": (b"<html><body>404</body></html>", "not a picture"),
        "nothing": (b"", "not a picture"),
        "bomb": (bomb, "too many pixels"),
        "zero size": (png[:16] + bytes(8) + png[24:], ""),
    }


@pytest.mark.parametrize("name", damaged_files())
def test_damaged_files_are_refused_with_a_reason(name):
    data, reason = damaged_files()[name]
    with quiet_decoding(), pytest.raises(UnusableImageError) as caught:
        probe_image(data)
    assert reason in str(caught.value)


def test_file_that_changed_since_the_scan_is_refused(draw):
    sample = sample_of(draw("picture.png"))
    draw("picture.png", seed=1)
    with pytest.raises(UnusableImageError, match="changed since the scan"):
        load_pixels(sample)


def test_file_that_vanished_is_refused(draw):
    path = draw("picture.png")
    sample = sample_of(path)
    path.unlink()
    with pytest.raises(UnusableImageError, match="cannot be read"):
        load_pixels(sample)


def mutate(data, random):
    """Overwrites, cuts or inserts a few bytes, mostly near the start, where the structure is."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 3, 10])):
        place = random.randrange(min(len(data), random.choice([120, len(data)])))
        # Replaces none to thirty bytes by none to four.
        width = random.choice([1, 0, random.randrange(1, 30)])
        data[place : place + width] = random.randbytes(random.choice([1, 0, 4]))
        data = data or bytearray(b"x")
    return bytes(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_any_bytes_are_either_pixels_or_refused(tmp_path, form):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, form)
    source, path = random.Random(form), tmp_path / "mutant"
    for _ in range(40):
        path.write_bytes(mutate(buffer.getvalue(), source))
        try:
            with quiet_decoding():
                facts = probe_image(path.read_bytes())
                plan = Plan(facts.orientation, (32, 32), (0, 0, 32, 24))
                pixels = load_pixels(Sample("d", str(path), facts.content, ("",), plan))
        except UnusableImageError as error:
            assert str(error)
        else:
            assert pixels.shape == (3, 24, 32) and np.isfinite(pixels).all()


def test_a_transparent_colour_of_an_rgb_picture_becomes_white(tmp_path):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "keyed.png", transparency=(255, 0, 0))
    assert tuple(as_bytes(load_pixels(sample_of(tmp_path / "keyed.png")))[0, 0]) == (255, 255, 255)


@pytest.mark.parametrize(("value", "shown"), [(77, 77), (0x8012, 128)])
def test_wide_integers_are_eight_or_sixteen_bits(tmp_path, value, shown):
    Image.fromarray(np.full((8, 8), value, dtype=np.int32)).save(tmp_path / "wide.tif")
    assert as_bytes(load_pixels(sample_of(tmp_path / "wide.tif")))[0, 0, 0] == shown


@pytest.mark.parametrize("pixels", [np.full((8, 8), 0.5, np.float32), np.full((8, 8), 1 << 20, np.int32)])
def test_numbers_without_a_known_white_are_refused_not_guessed(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "numbers.tif")
    with pytest.raises(UnusableImageError, match="which of them is white is not known"):
        sample_of(tmp_path / "numbers.tif")
