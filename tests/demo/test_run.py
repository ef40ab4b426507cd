import subprocess
import sys

import pytest

from flowtuner import durable
from flowtuner.demo import run
from flowtuner.errors import ConfigError, EngineFault


def test_the_demo_itself_loads_neither_torch_nor_prefect():
    code = "import sys, flowtuner.demo.run; sys.exit(bool({'torch', 'prefect', 'diffusers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"--output: the folder holds files that are not the demo's.*empty folder"):
        run.make_room(tmp_path, seed=0)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--output: the folder cannot be used: .*a folder you can write to"):
        run.make_room(tmp_path / "file", seed=0)


def test_a_negative_seed_is_refused_before_anything_starts(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run.run(["--seed", "-1", "--output", str(tmp_path / "demo")])
    assert stop.value.code == 2
    assert "--seed: got -1; allowed: 0 or more" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_finished_demo_makes_room_for_the_next_and_other_files_stay(tmp_path):
    for name in ("model", "pictures", "run", "published"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    durable.write_json(tmp_path / run.MARK, {"seed": 0, "is_finished": True})
    assert run.make_room(tmp_path, seed=0) is False
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unfinished_demo_of_the_same_seed_goes_on(tmp_path):
    (tmp_path / "run").mkdir()
    durable.write_json(tmp_path / run.MARK, {"seed": 3, "is_finished": False})
    assert run.make_room(tmp_path, seed=3) is True
    assert (tmp_path / "run").is_dir()
    assert run.make_room(tmp_path, seed=4) is False
    assert not (tmp_path / "run").exists()


def test_what_an_interrupted_preparation_leaves_is_no_obstacle(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "red_circle_0000.png").write_bytes(b"half")
    assert run.make_room(tmp_path, seed=0) is False
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_fails_says_why(tmp_path):
    with pytest.raises(EngineFault, match=r"flowtuner.demo.evaluate ended with exit code 1:(.|\n)*run.json"):
        run.run_child("flowtuner.demo.evaluate", tmp_path / "run.json", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_whole_demo(tmp_path):
    command = [sys.executable, "-m", "flowtuner.cli", "demo", "--seed", "5", "--output", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = durable.read_json(tmp_path / "demo" / "scores.json")
    assert scores["before"]["both"] < 0.2
    assert scores["after"]["both"] >= 0.6
    assert (tmp_path / "demo" / "before_after.png").is_file()
    assert (tmp_path / "demo" / "published" / "run" / "manifest.json").is_file()
