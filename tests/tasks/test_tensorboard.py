"""TensorBoard's files: every step once, whatever happened in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowtuner.engine.events import METRIC, PROGRESS, VALIDATION, EventLog
from flowtuner.options import LoadedConfig
from tasks.curves import POSITION
from tasks.trackers import tracked


@pytest.fixture
def config(tmp_path: Path) -> Any:
    from flowtuner.options import TrainingConfig

    return TrainingConfig(
        model_family="pixart_sigma",
        model_type="full",
        optimizer="torch-adamw",
        output_dir=tmp_path,
        data_backend_config=tmp_path / "data.json",
        report_to="tensorboard",
    )


def picture(folder: Path, step: int, colour: str) -> str:
    path = folder / f"step_{step}_circle_8x6_0.png"
    Image.new("RGB", (8, 6), colour).save(path)
    return str(path)


def train(config: Any, steps: range, loss: float, *, shows: dict[int, str] | None = None) -> None:
    """One process life: metrics for the steps, pictures after some of them."""
    folder = Path(config.output_dir)
    with EventLog(folder / "logs" / "events.jsonl", "run") as events, tracked(events, LoadedConfig(config)):
        for step in steps:
            events.append(METRIC, {"step": step, "loss": loss, "learning_rate": 1e-4, "grad_norm": None})
            if colour := (shows or {}).get(step):
                events.append(VALIDATION, {"step": step, "images": [picture(folder, step, colour)]})
        events.append(PROGRESS, {"step": steps[-1], "steps_per_s": 2.5})


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def test_a_resumed_run_shows_every_step_once(config: Any) -> None:
    train(config, range(1, 6), 1.0, shows={4: "red"})
    train(config, range(3, 8), 0.5, shows={4: "blue"})
    board = read(config.output_dir / "logs" / "tensorboard")
    assert {"train_loss", "learning_rate", "steps_per_s"} == set(board.Tags()["scalars"])
    loss = [(point.step, point.value) for point in board.Scalars("train_loss")]
    assert loss == [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5), (5, 0.5), (6, 0.5), (7, 0.5)]
    (image,) = board.Images("validation/circle_8x6_0")
    assert (image.step, image.width, image.height) == (4, 8, 6)
    assert image.encoded_image_string == Path(picture(config.output_dir, 4, "blue")).read_bytes()


def test_a_process_that_was_killed_before_it_noted_its_place_repeats_nothing(config: Any) -> None:
    place = config.output_dir / "logs" / "tensorboard" / POSITION
    train(config, range(1, 3), 1.0)
    noted = place.read_bytes()
    train(config, range(3, 6), 1.0, shows={4: "red"})
    place.write_bytes(noted)
    train(config, range(6, 8), 1.0)
    board = read(place.parent)
    assert [point.step for point in board.Scalars("train_loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert [image.step for image in board.Images("validation/circle_8x6_0")] == [4]


def test_the_folder_is_the_users_choice(config: Any, tmp_path: Path) -> None:
    train(config.model_copy(update={"logging_dir": tmp_path / "elsewhere"}), range(1, 2), 1.0)
    assert [point.value for point in read(tmp_path / "elsewhere" / "tensorboard").Scalars("train_loss")] == [1.0]


def test_nothing_is_written_where_nobody_asked(config: Any) -> None:
    train(config.model_copy(update={"report_to": "none"}), range(1, 2), 1.0)
    assert not (config.output_dir / "logs" / "tensorboard").exists()


def test_a_folder_that_cannot_be_written_costs_the_curves_not_the_run(config: Any) -> None:
    (config.output_dir / "logs").mkdir()
    (config.output_dir / "logs" / "tensorboard").write_text("in the way")
    train(config, range(1, 2), 1.0)
    assert "tensorboard is not up to date" in (config.output_dir / "logs" / "events.jsonl").read_text()
