"""The run page: what events amount to, without a server."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from PIL import Image

from flowtuner.engine.events import METRIC, PROGRESS, PUBLISH, STAGE, VALIDATION
from tasks.page import text
from tasks.page.chart import draw_curve, thin
from tasks.page.content import KEPT_POINTS, PageContent
from tasks.page.sheet import shrink


def test_the_curve_is_a_small_picture_of_all_finite_losses() -> None:
    points = [(step, 1 / step) for step in range(1, 20_000)] + [(20_000, float("nan"))]
    png = draw_curve(points)
    assert png is not None
    assert len(png) < 12_000
    assert Image.open(io.BytesIO(png)).size == (640, 240)


def test_there_is_no_curve_without_two_points() -> None:
    assert draw_curve([]) is None
    assert draw_curve([(1, float("inf")), (2, 1.0)]) is None


def test_a_flat_curve_is_drawn_too() -> None:
    assert draw_curve([(1, 0.0), (2, 0.0)]) is not None


def test_thinning_keeps_the_ends() -> None:
    points = [(step, 0.0) for step in range(1001)]
    thinned = thin(points, 10)
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert len(thinned) <= 12


def test_a_large_sheet_is_shrunk_until_it_fits(tmp_path: Path) -> None:
    noise = Image.effect_noise((2048, 2048), 200).convert("RGB")
    noise.save(tmp_path / "sheet.png")
    jpeg = shrink(tmp_path / "sheet.png")
    assert len(base64.b64encode(jpeg)) <= 200_000
    assert Image.open(io.BytesIO(jpeg)).format == "JPEG"


def test_a_cell_cannot_break_its_table() -> None:
    assert text.table(("a",), [("x|y\nz",)]).splitlines()[-1] == "| x\\|y z |"


def test_only_what_changed_is_given_out(tmp_path: Path) -> None:
    content = PageContent()
    assert content.take() == []
    content.take_note(STAGE, {"key": "vae_cache", "status": "running", "label": "pictures", "current": 1, "total": 4})
    (progress,) = content.take()
    assert (progress.key, progress.data, progress.description) == ("progress", 25.0, "pictures: 1 of 4")
    assert content.take() == []
    about = {"step": 5, "total_steps": 10, "loss": 0.5, "steps_per_s": 2.0, "eta_s": 2.5}
    content.take_note(PROGRESS, about)
    content.take_note(METRIC, {"step": 5, "loss": 0.5, "learning_rate": 1e-4, "grad_norm": None})
    keys = {artifact.key: artifact for artifact in content.take()}
    assert keys.keys() == {"progress", "metrics"}
    assert keys["progress"].data == 50
    assert "| 5 | 0.5 | 0.0001 |  |" in str(keys["metrics"].data)
    content.take_note(VALIDATION, {"step": 5, "sheet": str(tmp_path / "none.png"), "prompts": []})
    assert content.take() == []
    for state in ("uploading", "verified"):
        row = {"what": "release", "destination": "share", "state": state, "verified": state == "verified", "uri": "u"}
        content.take_note(PUBLISH, row)
    (published,) = content.take()
    assert len(re.findall("release", str(published.data))) == 1
    assert "| verified | yes |" in str(published.data)


def test_a_long_run_keeps_a_bounded_curve() -> None:
    content = PageContent()
    for step in range(3 * KEPT_POINTS):
        content.take_note(METRIC, {"step": step, "loss": 1.0, "learning_rate": 0.1, "grad_norm": None})
    content.take()
    assert len(content._metrics) <= KEPT_POINTS
    assert {0, 3 * KEPT_POINTS - 1} <= content._metrics.keys()
