"""Face crops: the largest face stays in the picture, whichever way it is turned; without one, the middle."""

import importlib.util

import pytest
from PIL import Image, ImageDraw, ImageFilter

from flowtuner.errors import DataError


def paint_face(image, x, y, r):
    """A face that OpenCV's cascade takes for one: hair, brows, eyes, nose and mouth in their places."""
    pen = ImageDraw.Draw(image)
    pen.ellipse((x - r * 0.85, y - r * 1.1, x + r * 0.85, y + r * 1.2), fill=(225, 190, 165))
    pen.pieslice((x - r * 0.95, y - r * 1.35, x + r * 0.95, y + r * 0.5), 180, 360, fill=(60, 40, 30))
    pen.ellipse((x - r * 0.75, y - r * 0.75, x + r * 0.75, y + r * 0.9), fill=(225, 190, 165))
    for side in (-1, 1):
        eye, brow = x + side * r * 0.36, y - r * 0.28
        pen.rectangle((eye - r * 0.24, y - r * 0.43, eye + r * 0.24, y - r * 0.33), fill=(70, 45, 35))
        pen.ellipse((eye - r * 0.2, brow, eye + r * 0.2, y - r * 0.02), fill=(120, 90, 80))
        pen.ellipse((eye - r * 0.1, y - r * 0.25, eye + r * 0.1, y - r * 0.05), fill=(20, 15, 15))
    pen.polygon([(x - r * 0.06, y - r * 0.1), (x + r * 0.06, y - r * 0.1), (x + r * 0.14, y + r * 0.3),
                 (x - r * 0.14, y + r * 0.3)], fill=(240, 210, 190))  # fmt: skip
    pen.rectangle((x - r * 0.15, y + r * 0.28, x + r * 0.15, y + r * 0.34), fill=(150, 110, 95))
    pen.ellipse((x - r * 0.32, y + r * 0.5, x + r * 0.32, y + r * 0.66), fill=(130, 60, 60))
    return image.filter(ImageFilter.GaussianBlur(r * 0.04))


@pytest.fixture
def portraits(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    wide = paint_face(Image.new("RGB", (800, 300), (200, 200, 200)), 600, 150, 90)
    wide.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.transpose(Image.Transpose.ROTATE_90).save(folder / "b.png", exif=exif)
    Image.new("RGB", (800, 300), "grey").save(folder / "c.png")
    return folder


def test_the_face_stays_in_the_crop(portraits, make_entry, scan):
    entry = make_entry(crop=True, crop_style="face", resolution=300)
    found = scan(entry, aspect_bucket_alignment=8)
    lefts = [sample.plan.crop[0] for sample in found.samples]
    width = found.samples[0].plan.resize[0]
    middle = round(width * 0.75) - found.samples[0].bucket[0] // 2
    assert abs(lefts[0] - middle) < 12 and abs(lefts[1] - middle) < 12
    assert lefts[2] == (width - found.samples[2].bucket[0]) // 2
    assert scan(entry, aspect_bucket_alignment=8) == found
    centred = scan(make_entry(crop=True, crop_style="center", resolution=300))
    assert [sample.plan.crop[0] for sample in centred.samples] == [lefts[2]] * 3


def test_without_the_package_the_extra_is_named(portraits, make_entry, scan, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"flowtuner\[faces\]"):
        scan(make_entry(crop=True, crop_style="face", resolution=300))
