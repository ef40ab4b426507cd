"""Environments over HTTP: the tutorial's way, names, lost updates, credentials."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from flowtuner.api.settings import ServerSettings

NEW = {
    "name": "pixart-api-demo",
    "model_family": "pixart_sigma",
    "model_flavour": "900M-1024-v0.6",
    "model_type": "full",
    "description": "PixArt 900M API-driven training",
}
NAME = NEW["name"]


@pytest.fixture
def made(local: TestClient) -> TestClient:
    assert local.post("/api/configs/environments", json=NEW).status_code == 200
    return local


def test_an_environment_is_three_files(made: TestClient, settings: ServerSettings) -> None:
    folder = settings.config_dir / "pixart-api-demo"
    config = json.loads((folder / "config.json").read_text())
    assert config["model_family"] == "pixart_sigma" and config["output_dir"] == "output/pixart-api-demo"
    assert config["data_backend_config"] == "pixart-api-demo/multidatabackend.json"
    assert json.loads((folder / ".metadata.json").read_text())["description"] == NEW["description"]
    plan = json.loads((folder / "multidatabackend.json").read_text())
    assert {entry["dataset_type"] for entry in plan} == {"image", "text_embeds"}
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    listed = made.get("/api/configs/?config_type=model").json()
    assert [row["name"] for row in listed["configs"]] == ["default", "pixart-api-demo"]
    assert made.post("/api/configs/environments", json=NEW).status_code == 409


def test_what_is_read_and_added_to_is_put_back_as_the_tutorial_does(made: TestClient, settings: ServerSettings) -> None:
    config = made.get("/api/configs/pixart-api-demo").json()["config"]
    assert config["data_backend_config"] == config["--data_backend_config"]
    changed = config | {"--output_dir": "/workspace/output/pixart900m", "--base_model_precision": "bf16"}
    update = {"name": "ignored", "description": "full tune", "tags": ["pixart"], "config": changed}
    assert made.put("/api/configs/pixart-api-demo", json=update).status_code == 200
    stored = json.loads((settings.config_dir / "pixart-api-demo" / "config.json").read_text())
    assert stored["output_dir"] == "/workspace/output/pixart900m"
    assert not [key for key in stored if key.startswith("-")]
    both = changed | {"output_dir": "/somewhere/else", "--output_dir": "/elsewhere"}
    refused = made.put("/api/configs/pixart-api-demo", json={"config": both})
    assert refused.status_code == 422 and refused.json()["errors"][0]["option"] == "output_dir"


def test_unknown_options_are_refused_with_the_nearest_known_one(made: TestClient) -> None:
    reply = made.put("/api/configs/pixart-api-demo", json={"config": {"learning_rat": 1, "train_batch_siz": 2}})
    assert reply.status_code == 422 and reply.json()["code"] == "invalid_configuration"
    assert [fault["suggestion"] for fault in reply.json()["errors"]] == [
        "Did you mean learning_rate?",
        "Did you mean train_batch_size?",
    ]


def test_of_two_who_read_the_same_only_one_may_write(made: TestClient) -> None:
    tag = made.get("/api/configs/pixart-api-demo").headers["etag"]
    answers: list[int] = []

    def write(seed: int) -> None:
        body = {"config": {"model_family": "pixart_sigma", "seed": seed}}
        answers.append(made.put("/api/configs/pixart-api-demo", json=body, headers={"If-Match": tag}).status_code)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 412, 412, 412]


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "a b", "x" * 101, "examples"])
def test_what_is_no_name_is_refused(local: TestClient, settings: ServerSettings, name: str) -> None:
    assert local.post("/api/configs/environments", json=NEW | {"name": name}).status_code in (400, 422)
    assert local.delete(f"/api/configs/{name}").status_code in (400, 404, 405)
    assert not list(settings.config_dir.glob("*/config.json"))


def test_credentials_go_in_and_never_come_out(made: TestClient, settings: ServerSettings) -> None:
    entry = {"provider": "s3", "bucket": "b", "access_key": "canary-a", "secret_key": "canary-b"}
    body = {"config": {"model_family": "pixart_sigma", "hub_token": "canary-c", "publishing_config": [entry]}}
    assert made.put("/api/configs/pixart-api-demo", json=body).status_code == 200
    for path in ("", "/export"):
        assert "canary" not in made.get(f"/api/configs/pixart-api-demo{path}").text
    shown = made.get("/api/configs/pixart-api-demo").json()["config"]
    assert made.put("/api/configs/pixart-api-demo", json={"config": shown | {"--seed": 7}}).status_code == 200
    stored = json.loads((settings.config_dir / "pixart-api-demo" / "config.json").read_text())
    assert stored["hub_token"] == "canary-c" and stored["publishing_config"] == [entry] and stored["seed"] == 7


def test_a_hidden_credential_follows_its_own_entry_and_no_other(made: TestClient, settings: ServerSettings) -> None:
    first = {"provider": "s3", "bucket": "a", "access_key": "AK1", "secret_key": "one"}
    second = {"provider": "s3", "bucket": "b", "access_key": "AK2", "secret_key": "two"}
    update(made, publishing_config=[first, second])
    shown = made.get(f"/api/configs/{NAME}").json()["config"]["publishing_config"]
    assert "one" not in str(shown)
    assert update(made, publishing_config=[shown[1], shown[0]]).status_code == 200
    assert read_file(settings)["publishing_config"] == [second, first]
    elsewhere = shown[0] | {"endpoint_url": "https://somebody-else.example.com"}
    refused = update(made, publishing_config=[elsewhere])
    assert refused.status_code == 422
    assert "Give the credential again." in refused.text
    assert read_file(settings)["publishing_config"] == [second, first]


def update(client: TestClient, **options: Any) -> Any:
    config = {"model_family": "pixart_sigma"} | options
    return client.put(f"/api/configs/{NAME}", json={"name": NAME, "config": config})


def read_file(settings: ServerSettings) -> Any:
    return json.loads((settings.config_dir / NAME / "config.json").read_text())


def test_activate_copy_rename_delete(made: TestClient) -> None:
    assert made.post("/api/configs/pixart-api-demo/activate").json()["active"] == "pixart-api-demo"
    assert made.post("/api/configs/pixart-api-demo/copy", json={"new_name": "second"}).status_code == 200
    assert made.get("/api/configs/second").json()["config"]["data_backend_config"] == "second/multidatabackend.json"
    assert made.post("/api/configs/pixart-api-demo/rename", json={"new_name": "third"}).status_code == 200
    assert made.get("/api/configs/").json()["active"] == "third"
    assert made.delete("/api/configs/third").status_code == 400  # it is active
    assert made.delete("/api/configs/second").status_code == 200
    assert made.get("/api/configs/second").status_code == 404


def test_a_dataloader_that_is_there_is_not_overwritten_by_mistake(made: TestClient) -> None:
    assert made.post("/api/configs/pixart-api-demo/dataloader", json={}).status_code == 409
    assert made.post("/api/configs/pixart-api-demo/dataloader", json={"replace": True}).status_code == 200


def test_every_example_can_be_started_from(local: TestClient) -> None:
    listed = local.get("/api/configs/examples").json()
    assert listed["count"] >= 10
    for number, example in enumerate(listed["examples"]):
        wanted = {"name": f"e{number}", "model_family": example["defaults"]["model_family"], "example": example["name"]}
        assert local.post("/api/configs/environments", json=wanted).status_code == 200, example["name"]


def test_validating_lists_every_fault(made: TestClient) -> None:
    body = {"config": {"model_family": "pixart_sigma", "train_batch_size": 0, "learning_rate": -1}}
    made.put("/api/configs/pixart-api-demo", json=body)
    reply = made.post("/api/configs/pixart-api-demo/validate").json()
    assert reply["is_valid"] is False
    assert {"train_batch_size", "learning_rate"} <= {error.partition(":")[0] for error in reply["errors"]}
