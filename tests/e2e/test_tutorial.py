"""The API tutorial, command by command, with curl and jq against a fresh server; only paths and sizes are smaller."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowtuner.engine.families import open_family
from tests.conftest import draw_pictures
from tests.fakes.receiver import receiving
from tests.options.test_seeds import KONTEXT, KONTEXT_DATA, PIXART, PIXART_DATA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SIZES = {"resolution": 32, "resolution_type": "pixel_area"}
LIMITS = {"minimum_image_size": 24, "maximum_image_size": 48, "target_downsample_size": 32}
SMALL = {
    "--aspect_bucket_alignment": 16,
    "--lr_warmup_steps": 1,
    "--max_train_steps": 4,
    "--checkpoint_step_interval": 2,
    "--validation_step_interval": 2,
    "--validation_resolution": "32x32",
    "--validation_num_inference_steps": 2,
    "--report_to": "none",
    "--ephemeral": "no",
}
ONCE = """
  -F __active_tab__=model
  -F --model_family=pixart_sigma
  -F --model_type=full
  -F --model_flavour=900M-1024-v0.6
  -F --pretrained_model_name_or_path=$MODEL
  -F --output_dir=$WORKSPACE/output/inline-demo
  -F --data_backend_config=config/multidatabackend-once.json
  -F --train_batch_size=1
  -F --learning_rate=0.0001
  -F --max_train_steps=200
  -F --num_train_epochs=0
  -F --validation_resolution=32x32 -F --validation_num_inference_steps=2 -F --ephemeral=no
""".replace("\n", " ")
ENVIRONMENT = "-X POST $API/api/configs/environments -H 'Content-Type: application/json' -d"
MERGE = """
curl -s $API/api/configs/NAME | jq --argjson more "$MORE" '.config + $more' > $WORKSPACE/config.json
jq '{ "name": "NAME", "description": "API", "tags": ["api"], "config": . }' $WORKSPACE/config.json \
  > $WORKSPACE/update.json
curl -s -X PUT $API/api/configs/NAME -H 'Content-Type: application/json' --data-binary @$WORKSPACE/update.json
"""
PROGRAM = Path(sys.executable).with_name("simpletuner")
OVER = ("completed", "error", "cancelled", "stopped")


class Shell:
    """A terminal beside the server's."""

    def __init__(self, root: Path, port: int, **variables: Path) -> None:
        self.root = root
        names = {"WORKSPACE": root / "workspace", "DATASETS_DIR": root / "datasets"} | variables
        self.environment = dict(os.environ) | {name: str(value) for name, value in names.items()}
        self.environment["API"] = f"http://localhost:{port}"
        (root / "workspace").mkdir()

    def __call__(self, script: str, **variables: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.root,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def read(self, script: str, **variables: str) -> Any:
        return json.loads(self(script, **variables))

    def wait_for(self, statuses: tuple[str, ...], timeout_s: float = 400) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while (found := self.read("curl -s $API/api/training/status"))["status"] not in statuses:
            assert time.monotonic() < deadline, found
            time.sleep(1)
        return found


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    root = tmp_path_factory.mktemp("tutorial")
    draw_pictures(root / "data/datasets/demo", 8)
    for path in draw_pictures(root / "data/datasets/kontext/edit", 8).iterdir():
        path.with_suffix(".txt").write_text(path.stem.replace("_", " "))
        reference = root / "data/datasets/kontext/reference" / path.name
        reference.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.convert("L").save(reference)
    for path in (root / "data/datasets/demo").iterdir():
        path.with_suffix(".txt").write_text(path.stem.replace("_", " "))
    draw_pictures(root / "data/datasets/pseudo-camera-10k", 8)
    model = open_family("pixart_sigma").tiny(root / "pixart")
    kontext = open_family("flux").tiny(root / "kontext", kontext=True, layers=1)
    with serve(root) as port:
        yield Shell(root, port, MODEL=model, KONTEXT=kontext)


class serve:  # noqa: N801  reads like a function
    """`simpletuner server` on a free port, until the end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def __enter__(self) -> int:
        environment = dict(os.environ) | {
            "FLOWTUNER_HOME": str(self.root / "home"),
            "DATASETS_DIR": str(self.root / "datasets"),
            "OMP_NUM_THREADS": "1",
            "FLOWTUNER_WEBHOOK_ALLOW": "127.0.0.1",
        }
        environment.pop("PREFECT_API_URL", None)
        with (self.root / "server.log").open("wb") as log:
            command = [str(PROGRAM), "server", "--port", str(self.port)]
            self.process = subprocess.Popen(command, cwd=self.root, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while not self._is_ready():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.root / "server.log").read_text()
            time.sleep(0.5)
        return self.port

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=10) as reply:
                return reply.status == 200
        except OSError:
            return False


def placed(shell: Shell, entries: list[dict[str, Any]]) -> str:
    return json.dumps(entries).replace('"/data/', f'"{shell.root}/data/')


WEBHOOK = """
  -F --webhook_config='[{"webhook_type":"raw","callback_url":"ADDRESS","log_level":"info","ssl_no_verify":false}]'
  -F --webhook_reporting_interval=10
""".replace("\n", " ")


def test_a_run_without_an_environment_is_watched_steered_and_stopped(shell: Shell) -> None:
    with receiving() as receiver:
        watch_steer_and_stop(shell, WEBHOOK.replace("ADDRESS", receiver.address))
        told = [json.loads(each.body) for each in receiver.accepted]
    assert {"training.status", "training.checkpoint", "training.validation"} <= {event["type"] for event in told}
    assert {event["job_id"] for event in told} == {shell.read("curl -s $API/api/training/status")["job_id"]}


def watch_steer_and_stop(shell: Shell, webhook: str) -> None:
    assert shell.read("curl -s $API/api/training/status")["status"] == "idle"
    assert shell.read("curl -s -X POST $API/api/training/validation/run")["detail"] == "No active training job"
    code = shell("curl -s -o /dev/null -w '%{http_code}' -X POST $API/api/training/checkpoint/run")
    assert code == "400"
    (shell.root / "config").mkdir(exist_ok=True)
    once = [
        {
            "id": "demo-images",
            "type": "local",
            "dataset_type": "image",
            "instance_data_dir": "/data/datasets/demo",
            "caption_strategy": "textfile",
            **SIZES,
        },
        {
            "id": "demo-text-embeds",
            "type": "local",
            "dataset_type": "text_embeds",
            "default": True,
            "cache_dir": "/data/cache/text/demo",
        },
    ]
    (shell.root / "config" / "multidatabackend-once.json").write_text(placed(shell, once))
    valid = shell(f"curl -s -X POST $API/api/training/validate {ONCE}")
    assert "alert-success" in valid or "Validation Warnings" in valid
    assert "Configuration Valid" in valid
    started = shell(
        f"curl -s -X POST $API/api/training/start {ONCE} {webhook} -F --validation_prompt='test shot of <token>'"
    )
    assert "Training Starting" in started and "Job ID: " in started
    running = shell.wait_for(("running", *OVER))
    assert running["status"] == "running", running
    assert running["config"]["validation_prompt"] == "test shot of <token>"
    wait_for_step(shell, 1)
    ordered = shell.read("curl -s -X POST $API/api/training/checkpoint/run")
    shell.read("curl -s -X POST $API/api/training/validation/run")
    assert ordered["job_id"] == running["job_id"]
    kinds = wait_for_events(shell, {"training.checkpoint", "training.validation"})
    drawn = next(event for event in kinds if event["type"] == "training.validation")
    assert drawn["images"][0]["src"].startswith("data:image/png;base64,")
    listed = shell.read("curl -s -X POST $API/api/training/checkpoints")
    assert listed["count"] >= 1 and listed["checkpoints"][0]["name"].startswith("checkpoint-")
    assert "stop requested" in shell.read("curl -s -X POST $API/api/training/stop")["message"]
    assert shell.wait_for(OVER)["status"] == "cancelled"


def test_the_pixart_example_is_trained(shell: Shell) -> None:
    body = {
        "name": "pixart-api-demo",
        "model_family": "pixart_sigma",
        "model_flavour": "900M-1024-v0.6",
        "model_type": "full",
        "description": "PixArt 900M API-driven training",
    }
    shell(f"curl -sf {ENVIRONMENT} '{json.dumps(body)}'")
    data = placed(shell, [PIXART_DATA[0] | SIZES | LIMITS, PIXART_DATA[1]])
    train_environment(shell, "pixart-api-demo", PIXART | {"--pretrained_model_name_or_path": "$MODEL"}, data)
    assert (shell.root / "workspace/output/pixart900m/pipeline/transformer").is_dir()


def test_the_kontext_example_is_trained(shell: Shell) -> None:
    body = {
        "name": "kontext-api-demo",
        "model_family": "flux",
        "model_flavour": "kontext",
        "model_type": "lora",
        "lora_type": "lycoris",
        "description": "Flux Kontext LoRA via API",
    }
    shell(f"curl -sf {ENVIRONMENT} '{json.dumps(body)}'")
    entries = [one | SIZES | (LIMITS if one["id"] == "kontext-edit" else {}) for one in KONTEXT_DATA[:2]]
    data = placed(shell, [*entries, KONTEXT_DATA[2]])
    train_environment(shell, "kontext-api-demo", KONTEXT | {"--pretrained_model_name_or_path": "$KONTEXT"}, data)
    assert (shell.root / "workspace/output/kontext/pytorch_lora_weights.safetensors").is_file()


def test_data_sets_are_uploaded(shell: Shell) -> None:
    made = shell.read(
        'mkdir -p "$DATASETS_DIR"; curl -s -X POST $API/api/datasets/folders '
        '-F parent_path="$DATASETS_DIR" -F folder_name="pixart-upload"'
    )
    assert made["success"] is True
    shell("cd data/datasets/demo && python3 -m zipfile -c $WORKSPACE/dataset.zip $(ls *.png | head -3)")
    packed = shell.read(
        "curl -s -X POST $API/api/datasets/upload/zip "
        '-F target_path="$DATASETS_DIR/pixart-upload" -F file=@$WORKSPACE/dataset.zip'
    )
    assert packed["files_uploaded"] == 3
    shell("cp $(ls data/datasets/demo/*.png | tail -1) $WORKSPACE/image001.png; echo words > $WORKSPACE/image001.txt")
    single = shell.read(
        'cd $WORKSPACE; curl -s -X POST $API/api/datasets/upload -F target_path="$DATASETS_DIR/pixart-upload" '
        "-F files[]=@image001.png -F files[]=@image001.txt"
    )
    assert (single["success"], single["files_uploaded"]) == (True, 2)


def test_the_queue_and_the_machine_answer_truthfully(shell: Shell) -> None:
    allocation = shell.read("curl -s \"$API/api/system/status?include_allocation=true\" | jq '.gpu_allocation'")
    assert set(allocation) == {"allocated_gpus", "available_gpus", "running_local_jobs", "devices"}
    assert shell.read("curl -s $API/api/queue/stats | jq '.local'")["max_concurrent_jobs"] == 1
    limits = """curl -s -X POST $API/api/queue/concurrency -H 'Content-Type: application/json' \
      -d '{"local_gpu_max_concurrent": 6, "local_job_max_concurrent": 2}'"""
    assert shell.read(limits)["local_gpu_max_concurrent"] == 6
    unlimited = limits.replace("6", "null").replace('"local_job_max_concurrent": 2', '"local_job_max_concurrent": 1')
    assert shell.read(unlimited)["local_gpu_max_concurrent"] is None
    submitted = shell.read(
        """curl -s -X POST $API/api/queue/submit -H 'Content-Type: application/json' \
        -d '{"config_name": "pixart-api-demo", "no_wait": false, "any_gpu": false, "target": "auto"}'"""
    )
    assert submitted["success"] is True and submitted["status"] in ("running", "queued")
    assert shell.wait_for(OVER)["status"] == "completed"
    jobs = f"SIMPLETUNER_PORT={shell.environment['API'].rpartition(':')[2]} {PROGRAM} jobs submit pixart-api-demo"
    assert "Nothing was submitted" in shell(f"{jobs} --dry-run")
    assert "Job submitted successfully!" in shell(jobs)
    assert "reached" in shell(f"{jobs} --no-wait 2>&1 || true")
    assert "Job ID: " in shell(f"{jobs} --any-gpu")
    while shell.read("curl -s $API/api/queue")["entries"]:
        time.sleep(1)
    assert {job["status"] for job in shell.read("curl -s $API/api/cloud/jobs")["jobs"][:3]} == {"completed"}
    workers = shell("curl -s $API/api/admin/workers | jq '.workers[] | {name, status, gpu_name, gpu_count}'")
    assert json.loads(workers)["status"] == "idle"


def test_the_interface_is_described(shell: Shell) -> None:
    assert shell.read("curl -s -o $WORKSPACE/openapi.json $API/openapi.json; jq .info $WORKSPACE/openapi.json")["title"]
    tags = {
        tag
        for methods in json.loads((shell.root / "workspace/openapi.json").read_text())["paths"].values()
        for operation in methods.values()
        for tag in operation["tags"]
    }
    assert {"configurations", "training"} <= tags
    for page in ("docs", "redoc"):
        assert shell(f"curl -s -o /dev/null -w '%{{http_code}}' $API/{page}") == "200"


def test_accounts_come_last(shell: Shell) -> None:
    assert shell.read("curl -s $API/api/cloud/auth/setup/status | jq")["needs_setup"] is True
    as_json = "-H 'Content-Type: application/json'"
    secret = '"username": "admin", "password": "your-secure-password"'
    shell(f"""curl -sf -X POST $API/api/cloud/auth/setup/first-admin {as_json} \
      -d '{{"email": "admin@example.com", {secret}}}'""")
    shell(f"curl -sf -X POST $API/api/cloud/auth/login {as_json} -c $WORKSPACE/cookies.txt -d '{{{secret}}}'")
    key = shell.read(
        f"""curl -s -X POST $API/api/cloud/auth/api-keys {as_json} -b $WORKSPACE/cookies.txt \
        -d '{{"name": "automation-key"}}' | jq"""
    )["key"]
    assert shell("curl -s -o /dev/null -w '%{http_code}' $API/api/training/status") == "401"
    assert shell.read(f"curl -s $API/api/training/status -H 'X-API-Key: {key}'")["status"] == "completed"
    created = shell.read(
        f"""curl -s -X POST $API/api/users {as_json} -b $WORKSPACE/cookies.txt -d '{{
        "email": "researcher@example.com", "username": "researcher",
        "password": "their-password", "level_names": ["researcher"]}}'"""
    )
    assert created["levels"][0]["name"] == "researcher"


def train_environment(shell: Shell, name: str, written: dict[str, Any], data: str) -> None:
    files = shell.root / "config" / name
    assert {path.name for path in files.iterdir()} >= {"config.json", "multidatabackend.json"}
    (files / "multidatabackend.json").write_text(data)
    share = shell.root / "share" / name
    share.mkdir(parents=True)
    more = written | SMALL | {"--publishing_config": [{"provider": "folder", "path": str(share), "name": "share"}]}
    more |= {"--data_backend_config": f"{name}/multidatabackend.json"}
    text = (
        json.dumps(more).replace('"/workspace/', f'"{shell.root}/workspace/').replace('"/data/', f'"{shell.root}/data/')
    )
    for variable in ("MODEL", "KONTEXT"):
        text = text.replace(f'"${variable}"', json.dumps(shell.environment[variable]))
    shell(MERGE.replace("NAME", name), MORE=text)
    assert "is now active" in shell(f"curl -s -X POST $API/api/configs/{name}/activate")
    form = "-F __active_tab__=model -F --num_train_epochs=0"
    assert "Configuration Valid" in (said := shell(f"curl -s -X POST $API/api/training/validate {form}")), said
    assert "Job ID: " in shell(f"curl -s -X POST $API/api/training/start {form}")
    ended = shell.wait_for(OVER)
    assert ended["status"] == "completed", ended
    assert ended["progress"]["step"] == ended["progress"]["total_steps"] == 4
    events = read_all(shell)
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    assert {"job.status", "lifecycle.stage", "training.progress", "training.checkpoint", "publish.status"} <= {
        event["type"] for event in events
    }
    assert list(share.rglob("manifest.json"))


def wait_for_step(shell: Shell, step: int) -> None:
    deadline = time.monotonic() + 200
    while ((shell.read("curl -s $API/api/training/status")["progress"] or {}).get("step") or 0) < step:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def wait_for_events(shell: Shell, kinds: set[str]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 120
    while True:
        found = read_all(shell)
        if kinds <= {event["type"] for event in found}:
            return found
        assert time.monotonic() < deadline, [event["type"] for event in found]
        time.sleep(1)


def read_all(shell: Shell) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while page := shell.read(f'curl -s "$API/api/training/events?since_index={len(events)}"')["events"]:
        events += page
    return events
