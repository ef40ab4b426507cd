"""The run page: what events amount to, without a server."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowtuner.engine.events import METRIC, NOTIFICATION, PROGRESS, PUBLISH, SCRIPT, STAGE, VALIDATION
from flowtuner.options import load
from tasks.page import text
from tasks.page.chart import draw_curve, thin, ticks
from tasks.page.content import KEPT_POINTS, PageContent
from tasks.page.sheet import shrink, shrink_films


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


def write_film(path: Path, edge: int, frames: int) -> Path:
    first, *rest = [Image.effect_noise((edge, edge // 2), 200).convert("RGB") for _ in range(frames)]
    first.save(path, "GIF", save_all=True, append_images=rest, duration=100)
    return path


def test_films_are_shrunk_until_they_fit_together_and_still_move(tmp_path: Path) -> None:
    paths = [write_film(tmp_path / f"{number}.gif", 256, 24) for number in range(5)]
    films = shrink_films([tmp_path / "gone.gif", *paths])
    assert len(films) == 4
    assert sum(map(len, films)) <= 150_000
    for film in films:
        shown = Image.open(io.BytesIO(film))
        assert shown.n_frames > 1
        assert shown.width == 2 * shown.height
        assert abs(shown.n_frames * shown.info["duration"] - 2400) <= 2400 / 4
    [alone] = shrink_films([write_film(tmp_path / "small.gif", 32, 4)])
    assert (Image.open(io.BytesIO(alone)).size, Image.open(io.BytesIO(alone)).n_frames) == ((32, 16), 4)


def test_the_page_shows_films_and_pictures(tmp_path: Path) -> None:
    content = PageContent()
    film = write_film(tmp_path / "film.gif", 32, 3)
    content.take_note(VALIDATION, {"step": 3, "sheet": None, "videos": [str(film)], "prompts": ["a fox"]})
    (artifact,) = content.take()
    assert "data:image/gif;base64," in str(artifact.data)
    assert "- a fox" in str(artifact.data)


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
        row = {"what": "release", "destination": "share", "state": state, "verified": state == "verified"}
        row |= {"uri": "u"} if state == "verified" else {}
        content.take_note(PUBLISH, row)
    (published,) = content.take()
    assert str(published.data).splitlines()[2:] == ["| release | share | verified |  |", "", "- release, share: u"]


def test_a_long_run_keeps_a_bounded_curve() -> None:
    content = PageContent()
    for step in range(3 * KEPT_POINTS):
        content.take_note(METRIC, {"step": step, "loss": 1.0, "learning_rate": 0.1, "grad_norm": None})
    content.take()
    assert len(content._metrics) <= KEPT_POINTS
    assert {0, 3 * KEPT_POINTS - 1} <= content._metrics.keys()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.044, 0.281, [0.05, 0.1, 0.15, 0.2, 0.25]),
        (21, 60, [30, 40, 50, 60]),
        (0, 100_000, [0, 20_000, 40_000, 60_000, 80_000, 100_000]),
        (1, 2, [1, 1.2, 1.4, 1.6, 1.8, 2]),
    ],
)
def test_the_axes_carry_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_what_was_published_is_listed_in_the_order_of_its_steps() -> None:
    rows = [
        {"what": f"checkpoint-{step}", "destination": "share", "step": step, "state": state, "verified": False}
        | {"message": message}
        for step, state, message in ((100, "uploading", ""), (20, "failed", "the disk is full"))
    ]
    assert text.describe_published(rows).splitlines()[2:] == [
        "| checkpoint-20 | share | **failed** |  |",
        "| checkpoint-100 | share | uploading |  |",
        "",
        "- checkpoint-20, share: the disk is full",
    ]
    done = {"state": "verified", "verified": True, "files": 7, "bytes": 14_965_624, "uri": "file:///mnt/share"}
    assert "| verified | 7 files, 15.0 MB |" in text.describe_published([rows[0] | done])


def test_a_validation_that_failed_says_why() -> None:
    content = PageContent()
    content.take_note(VALIDATION, {"step": 5, "sheet": None, "prompts": ["red"], "error": "out of memory"})
    (validation,) = content.take()
    assert str(validation.data).splitlines() == ["**Not complete:** out of memory", "", "- red"]


def test_the_configuration_shows_first_what_somebody_set(tiny_run: dict[str, Any]) -> None:
    shown = text.describe_configuration(load(values=tiny_run))
    chosen, datasets, others = shown.split("\n## ")
    assert '| optimizer | "torch-adamw" | parameters |' in chosen
    assert "ema_decay" not in chosen
    assert "| pictures | " in datasets
    assert "| ema_decay | 0.995 |" in others


def test_how_far_an_upload_is_and_how_far_a_destination_is_behind_is_shown() -> None:
    row = {"what": "checkpoint-8", "destination": "share", "step": 8, "state": "uploading", "verified": False}
    row |= {"done_bytes": 1, "total_bytes": 4, "retries": 2}
    row |= {"last_verified_step": 4, "publish_lag_steps": 4, "publish_lag_seconds": 61.4}
    shown = text.describe_published([row])
    assert "| checkpoint-8 | share | uploading, 25 % |" in shown
    assert "| share | 4 | 4 | 61 |" in shown


def test_scripts_are_shown_with_how_they_ended_and_what_they_said() -> None:
    content = PageContent()
    row = {"script": "post_upload_script", "what": "release", "destination": "share", "state": "started"}
    content.take_note(SCRIPT, row)
    assert "| post_upload_script | release | share | runs |" in str(content.take()[0].data)
    content.take_note(SCRIPT, row | {"state": "failed", "exit_code": 3, "seconds": 1.5, "output": "no\nroom"})
    (artifact,) = content.take()
    assert artifact.key == "scripts"
    assert "| post_upload_script | release | share | **exit code 3** | 1.5 |" in str(artifact.data)
    assert "    no\n    room" in str(artifact.data)


def test_warnings_stand_on_the_page_once_each() -> None:
    content = PageContent()
    for severity, message in (
        ("info", "fine"),
        ("warning", "this may be a container"),
        ("warning", "this may be a container"),
    ):
        content.take_note(NOTIFICATION, {"severity": severity, "message": message})
    (artifact,) = content.take()
    assert (artifact.key, artifact.data) == ("warnings", "- **warning:** this may be a container")
