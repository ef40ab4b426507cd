"""The commands that start nothing."""

import json
import subprocess
import sys
import time

import pytest

from flowtuner import __version__
from flowtuner.cli.main import COMMANDS, main, train


def test_help_is_quick_and_light():
    code = (
        "import sys; from flowtuner.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: sys.stderr.write(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert not {"torch", "prefect", "pydantic", "rich"} & set(done.stderr.split())
    assert seconds < 0.5 or _python_alone() > 0.2, (
        "half a second, unless the machine is too busy to start Python at all"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0
    assert f"usage: flowtuner {command}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"flowtuner {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["trian"], ["deploy", "--what"], ["config"], ["config", "display"]])
def test_what_is_no_command_is_a_mistake(argv, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == 2
    assert "usage: flowtuner" in capsys.readouterr().err


def test_check_of_a_good_configuration(config_file, tmp_path, capsys):
    assert main(["check", "--config", str(config_file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"no errors, no warnings. Ready to train pixart_sigma (full) for 6 steps into {tmp_path}/output.\n"
    assert err == ""


def test_check_lists_everything_at_once_as_json(config_file, capsys):
    assert main(["check", "--config", str(config_file), "--json", "--sedd=1", "--train_batch_size", "0"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    first, second = (finding["message"] for finding in answer["findings"])
    assert "sedd: is no known option" in first
    assert "Did you mean seed?" in first
    assert "train_batch_size" in second


def test_an_estimate_says_what_a_run_takes_and_starts_nothing(config_file, tmp_path, capsys):
    flags = ["--config", str(config_file), "--no-probe"]
    assert main(["estimate", *flags, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fits"] and answer["peak"] == max(answer["phases"].values()) and answer["seconds"] is None
    assert answer["parts"]["optimizer"] == 2 * answer["parts"]["gradients"] > 0
    assert not (tmp_path / "output" / "logs").exists()
    assert main(["estimate", *flags, "--train_batch_size=0"]) == 2
    assert "train_batch_size" in capsys.readouterr().err


def test_a_dry_run_starts_nothing(config_file, home, capsys):
    assert main(["train", "--config", str(config_file), "--dry-run"]) == 0
    assert "Ready to train" in capsys.readouterr().out
    assert not home.exists()


def test_simpletuner_train_is_the_same_command(config_file, capsys):
    assert train(["--config", str(config_file), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["max_train_steps"] == 6


def test_environments_are_found_by_name(config_file, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "config" / "mine"
    folder.mkdir(parents=True)
    config_file.rename(folder / "config.json")
    assert main(["check", "--env", "mine"]) == 0
    monkeypatch.setenv("ENV", "mine")
    assert main(["check"]) == 0
    capsys.readouterr()
    assert main(["check", "--env", "mien"]) == 2
    assert "mine" in capsys.readouterr().err


def test_config_show_says_where_values_came_from(config_file, capsys):
    assert main(["config", "show", "--config", str(config_file), "--origin", "--seed=5"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["seed"].endswith("= 5    # flag --seed")
    assert "config.json, line" in lines["learning_rate"]
    assert "lora_rank" not in lines
    assert "--all shows them" in err


def test_config_show_hides_secrets_and_speaks_json(config_file, capsys):
    entry = {"provider": "folder", "path": "/share", "secret_key": "hush"}
    flags = [f"--publishing_config={json.dumps(entry)}", "--json", "--all"]
    assert main(["config", "show", "--config", str(config_file), *flags]) == 0
    text = capsys.readouterr().out
    assert "hush" not in text
    assert json.loads(text)["lora_rank"] == 16


def test_config_schema_is_flat(capsys):
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "learning_rate" in schema["properties"]
    assert "$defs" not in schema


def test_deploy_needs_a_server(capsys):
    assert main(["deploy"]) == 2
    assert "no Prefect server is configured" in capsys.readouterr().err


def test_explain_before_anything_was_cached(config_file, pictures, capsys):
    picture = next(pictures.glob("*.png"))
    assert main(["cache", "explain", str(picture), "--config", str(config_file)]) == 1
    assert "no caches yet: run `flowtuner cache` first" in capsys.readouterr().err


def _python_alone() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return time.monotonic() - started
