"""Checkpoints on disk: whole or not there, and never trusted without proof."""

import pytest

from flowtuner import durable
from flowtuner.engine import checkpoints
from flowtuner.errors import CheckpointError

STATE = checkpoints.SavedState(
    global_step=3,
    micro_batches=6,
    epoch=1,
    seed=7,
    identity={"model_type": "full", "train_batch_size": 2},
    data_set="d",
)


def write(output, step, text="weights"):
    folder = checkpoints.folder_of(output, step)
    checkpoints.write_checkpoint(
        folder, STATE, lambda part: (part / "weights.bin").write_text(text), {"model_type": "full"}
    )()
    return folder


def test_a_written_checkpoint_proves_itself_and_reads_back(tmp_path):
    folder = write(tmp_path, 3)
    assert checkpoints.find_faults(folder) == []
    assert checkpoints.read_state(folder) == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: (folder / "weights.bin").write_text("weightz"), "does not have the recorded SHA-256"),
        (lambda folder: (folder / "weights.bin").write_text("w"), "has 1 bytes instead of 7"),
        (lambda folder: (folder / "weights.bin").unlink(), "weights.bin is missing"),
        (lambda folder: (folder / checkpoints.MANIFEST).unlink(), "never completed"),
        (lambda folder: (folder / checkpoints.MANIFEST).write_text("{"), "cannot be read"),
    ],
)
def test_damage_is_named_and_latest_goes_back_to_the_one_before(tmp_path, damage, fault):
    write(tmp_path, 2)
    newest = write(tmp_path, 10)
    damage(newest)
    assert fault in " ".join(checkpoints.find_faults(newest))
    warnings = []
    assert checkpoints.find_resume_point(tmp_path, "latest", warnings.append).name == "checkpoint-2"
    assert "checkpoint-10" in warnings[0]
    with pytest.raises(CheckpointError, match="not whole"):
        checkpoints.find_resume_point(tmp_path, "checkpoint-10", warnings.append)


def test_a_save_that_fails_leaves_the_old_one_untouched(tmp_path):
    folder = write(tmp_path, 3)
    before = durable.record_files(folder)

    def fail(part):
        (part / "weights.bin").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write_checkpoint(folder, STATE, fail, {})
    assert durable.record_files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_rotation_keeps_the_newest_by_number_not_by_name(tmp_path):
    for step in (5, 10, 100, 20):
        write(tmp_path, step)
    removed = checkpoints.rotate(tmp_path, keep=2, newest=tmp_path / "checkpoint-100")
    assert [path.name for path in removed] == ["checkpoint-5", "checkpoint-10"]
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-100"]
    assert checkpoints.rotate(tmp_path, keep=0, newest=tmp_path / "checkpoint-100") == []


def test_leftovers_of_a_kill_are_no_checkpoints_and_are_removed(tmp_path):
    write(tmp_path, 4)
    (tmp_path / "checkpoint-8-tmp").mkdir()
    (tmp_path / "checkpoint-8-tmp" / "half.bin").write_text("x")
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["checkpoint-4"]
    checkpoints.remove_leftovers(tmp_path)
    assert not (tmp_path / "checkpoint-8-tmp").exists()


def test_a_missing_name_lists_what_there_is(tmp_path):
    write(tmp_path, 4)
    with pytest.raises(CheckpointError, match=r"no such folder.*checkpoint-4"):
        checkpoints.find_resume_point(tmp_path, "checkpoint-5", print)


def test_another_training_is_refused_by_name_of_the_option(tmp_path):
    folder = write(tmp_path, 3)
    with pytest.raises(CheckpointError, match="train_batch_size was 2, now 4"):
        checkpoints.check_identity(STATE, {"model_type": "full", "train_batch_size": 4}, folder)
    checkpoints.check_identity(STATE, {"model_type": "full", "train_batch_size": 2}, folder)


def test_a_checkpoint_caught_while_being_replaced_comes_back(tmp_path):
    folder = write(tmp_path, 3)
    folder.rename(tmp_path / "checkpoint-3-old-tmp")  # killed after the old one made way, before the new one took it
    (tmp_path / "checkpoint-3-tmp").mkdir()
    checkpoints.remove_leftovers(tmp_path)
    assert checkpoints.find_faults(folder) == []
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_a_checkpoint_that_was_replaced_leaves_nothing_behind(tmp_path):
    write(tmp_path, 3, text="new")
    (tmp_path / "checkpoint-3-old-tmp").mkdir()  # killed after the new one took its place
    checkpoints.remove_leftovers(tmp_path)
    assert (tmp_path / "checkpoint-3" / "weights.bin").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_latest_without_a_whole_checkpoint_says_that_it_starts_afresh(tmp_path):
    (write(tmp_path, 3) / "weights.bin").unlink()
    warnings = []
    assert checkpoints.find_resume_point(tmp_path, "latest", warnings.append) is None
    assert "starts from the beginning" in warnings[-1]
