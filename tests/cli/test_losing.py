"""A machine that is thrown away: what the command line refuses, and how soon."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from flowtuner.cli.main import main


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_run_that_would_lose_its_results_ends_with_a_code_of_its_own(command, config_file, tmp_path, capsys):
    share = json.dumps({"provider": "folder", "path": str(tmp_path / "copies")})
    assert main([command, "--config", str(config_file), "--ephemeral=yes", f"--publishing_config={share}"]) == 3
    said = capsys.readouterr()
    assert "would_lose_results: this machine is thrown away" in said.err
    assert "Nothing was started." in said.out + said.err
    assert not (tmp_path / "output" / "logs").exists()


def test_it_is_refused_within_two_seconds(config_file):
    code = "import sys; from flowtuner.cli.main import main; code = main(sys.argv[1:]); assert code == 3, code"
    words = [sys.executable, "-c", code, "train", "--config", str(config_file), "--ephemeral=yes"]
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import pydantic, PIL.Image"], check=True)
    alone = time.monotonic() - started
    assert seconds < 2 or alone > 0.25, (
        f"two seconds, unless the machine is busy: {seconds:.1f} s, imports {alone:.1f} s"
    )


def test_caching_needs_no_destination_and_an_interval_is_chosen_aloud(config_file, tiny_run, tmp_path, capsys):
    del tiny_run["checkpoint_step_interval"]
    config_file.write_text(json.dumps(tiny_run))
    assert main(["check", "--config", str(config_file), "--ephemeral=yes", "--json"]) == 3
    found = {each["check"]: each["message"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert "every 10 minutes or every 5% of the run" in found["checkpoint_step_interval"]
    assert main(["check", "--config", str(config_file), "--ephemeral=no"]) == 0


def test_mistakes_in_destinations_are_told_with_all_others(config_file, capsys):
    entry = json.dumps({"provider": "folder", "pth": "/mnt"})
    assert main(["check", "--config", str(config_file), "--learning_rate=-1", f"--publishing_config={entry}"]) == 2
    said = capsys.readouterr().err
    assert "learning_rate: is too small" in said
    assert "did you mean 'path'?" in said
