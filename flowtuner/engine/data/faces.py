"""Where the largest face of a picture is, by OpenCV's own cascade (the extra `faces`)."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from flowtuner.engine.data.images import open_turned
from flowtuner.errors import DataError

CASCADE = "haarcascade_frontalface_default.xml"
LONGER_EDGE = 512
LEAST_SHARE = 0.05


def check_faces(dataset: str) -> None:
    """DataError if faces cannot be looked for here."""
    if importlib.util.find_spec("cv2") is None:
        raise DataError(
            f"dataset {dataset}: crop_style face needs the package opencv-python-headless: "
            "pip install 'flowtuner[faces]'. Without it, center suits most portraits."
        )


class FaceFinder:
    """Finds faces; each thread makes its own, since the detector is not made to be shared."""

    def __init__(self) -> None:
        cv2: Any = importlib.import_module("cv2")
        self._cascade: Any = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / CASCADE))

    def find(self, data: bytes, orientation: int) -> tuple[float, ...]:
        """The middle of the largest face, as shares of width and height; nothing without one."""
        image = open_turned(data, orientation, LONGER_EDGE)
        least = max(24, int(min(image.size) * LEAST_SHARE))
        found = self._cascade.detectMultiScale(np.asarray(image.convert("L")), 1.1, 5, minSize=(least, least))
        if not len(found):
            return ()
        # The order of equal ones is the detector's own: position decides, so that every run crops alike.
        left, top, width, height = max(((int(x), int(y), int(w), int(h)) for x, y, w, h in found), key=_rank)
        return (left + width / 2) / image.width, (top + height / 2) / image.height


def _rank(box: tuple[int, int, int, int]) -> tuple[int, int, int]:
    return box[2] * box[3], -box[1], -box[0]
