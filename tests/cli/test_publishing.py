"""The verbs around publishing that start no run: verify, list, destination, and what `--to` may be."""

import json

import pytest

from blocks.folder import FolderDestination
from flowtuner.cli.main import main
from flowtuner.cli.targets import find_folder, read_targets
from flowtuner.errors import ConfigError
from flowtuner.jobs.server import prefect_server
from flowtuner.publishing.snapshot import checkpoint_unit, freeze


@pytest.fixture
def published(tmp_path):
    """A run's folder whose checkpoint is on a share."""
    (tmp_path / "share").mkdir()
    folder = tmp_path / "run/checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("weights")
    snapshot = freeze(checkpoint_unit(folder, "r", 2, {})).seal()
    FolderDestination(path=tmp_path / "share").publish(snapshot, lambda done, total: None)
    return tmp_path / "run"


@pytest.fixture
def one_server(home):
    """One Prefect server for all commands of a test."""
    with prefect_server(start_timeout_s=300):
        yield


def test_what_is_published_is_listed_and_verified(published, tmp_path, capsys):
    share = str(tmp_path / "share")
    assert main(["publish", "list", str(published), "--to", share]) == 0
    assert "checkpoint-2  step 2" in capsys.readouterr().out
    assert main(["publish", "verify", str(published), "--to", share, "--deep", "--json"]) == 0
    [holding] = json.loads(capsys.readouterr().out)
    assert (holding["name"], holding["faults"]) == ("checkpoint-2", [])

    (tmp_path / "share/run/checkpoint-2/weights").write_text("WEIGHTS")
    assert main(["publish", "verify", str(published), "--to", share]) == 0
    assert main(["publish", "verify", str(published), "--to", share, "--deep"]) == 1
    assert "weights has other bytes" in capsys.readouterr().err


def test_a_run_that_published_nowhere_asks_for_a_place(published, capsys):
    assert main(["publish", "list", str(published)]) == 2
    assert "--to FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("./share", {"provider": "folder", "path": "share"}),
        ('{"provider": "s3", "bucket": "{env:BUCKET}"}', {"provider": "s3", "bucket": "models"}),
        ("team", {"provider": "s3", "bucket": "x", "name": "team"}),
        ("prod-s3", "prod-s3"),
        ("hf://alice/fox", {"provider": "huggingface", "repo_id": "hf://alice/fox"}),
        ("s3://models/team/a/", {"provider": "s3", "bucket": "models", "base_path": "team/a"}),
        ("file:///mnt/a%20share", {"provider": "folder", "path": "/mnt/a share"}),
    ],
)
def test_where_to_is_a_folder_an_entry_or_a_name(word, wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("BUCKET", "models")
    [found] = read_targets([word], [{"provider": "s3", "bucket": "x", "name": "team"}])
    if word == "./share":
        wanted = wanted | {"path": str(tmp_path / "share")}
    assert found == wanted


def test_an_address_of_nothing_is_not_taken_for_a_folder():
    with pytest.raises(ConfigError, match="s3://BUCKET/PATH, hf://OWNER/NAME"):
        read_targets(["gs://models/team"])


def test_an_environment_stands_for_its_output_folder(tiny_run, tmp_path):
    (tmp_path / "config/mine").mkdir(parents=True)
    (tmp_path / "config/mine/config.json").write_text(json.dumps(tiny_run))
    with pytest.raises(ConfigError, match="is gone"):
        find_folder("mine")
    (tmp_path / "output").mkdir()
    assert find_folder("mine") == tmp_path / "output"


@pytest.mark.parametrize("settings", [["provider=folder", "path"], ["[]"], ["{"], ["provider=folder", "path={env:NO}"]])
def test_an_entry_that_cannot_be_read_is_a_mistake(settings, capsys):
    assert main(["destination", "add", "x", *settings]) == 2
    assert "destination" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("one_server")
def test_a_destination_is_kept_listed_tested_and_published_to(published, tmp_path, capsys):
    share = tmp_path / "other"
    share.mkdir()
    assert main(["destination", "add", "the-share", "provider=folder", f"path={share}"]) == 0
    assert main(["destination", "add", "Not A Name", "provider=folder", f"path={share}"]) == 2
    capsys.readouterr()
    assert main(["destination", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["the-share"]
    assert main(["destination", "test", "the-share"]) == 0
    assert main(["destination", "test", "nobodys"]) == 2
    assert main(["blocks", "register"]) == 0
    assert "flowtuner-folder" in capsys.readouterr().out
    model = tmp_path / "trl"
    model.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "training_args.bin", ".env"):
        (model / name).write_text("{}")
    assert main(["publish", str(model), "--to", "the-share"]) == 0
    assert sorted(path.name for path in (share / "trl").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    (share / "trl/adapter_config.json").write_text("[]")
    assert main(["publish", "repair", str(model), "--to", "the-share"]) == 0
    assert (share / "trl/adapter_config.json").read_text() == "{}"
