"""The sample scripts against services on loopback: what they send, what they wait for, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flowtuner.options import TrainingConfig
from flowtuner.publishing.scripts import check_script, expand, values_of

FOLDER = Path(__file__).parents[2] / "examples" / "external-validation"
REMOTE = "https://cdn.example.com/models/my%20run/checkpoint-8"
TEMPLATE = (
    "{python} {script} --remote {remote_checkpoint_path} --model_family {model_family} --model_type {model_type} "
    "--lora_type {lora_type} --hub_model_id {huggingface_path} --prompt {validation_prompt}"
)
KEYS = {"REPLICATE_API_TOKEN": "canary-r", "WAVESPEED_API_KEY": "canary-w", "FAL_KEY": "canary-f"}


class Service:
    """Answers as the three services do, first `pending` times that it is not ready yet."""

    def __init__(self, pending: int = 2, fails: bool = False, refuses: int = 0) -> None:
        self.seen: list[tuple[str, str, str, Any]] = []
        self._pending, self._fails, self._refuses = pending, fails, refuses

    def answer(self, method: str, path: str, authorization: str, body: Any) -> tuple[int, dict[str, Any]]:
        self.seen.append((method, path, authorization, body))
        if self._refuses:
            return self._refuses, {"detail": "not now"}
        if method == "POST":
            return 200, {"id": "p1", "request_id": "p1", "status": "starting", "data": {"id": "p1"}}
        self._pending -= 1
        status = "processing" if self._pending >= 0 else "failed" if self._fails else "completed"
        picture = "https://pictures/1.png"
        done = {"status": status, "output": [picture], "outputs": [picture], "images": [{"url": picture}]}
        return 200, done | {"data": done, "error": "the LoRA is broken" if self._fails else None}


@pytest.fixture
def serve() -> Iterator[Any]:
    servers = []

    def start(service: Service) -> str:
        class Handler(BaseHTTPRequestHandler):
            def _handle(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                code, answer = service.answer(self.command, self.path, self.headers["Authorization"], body)
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _handle  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def config(**values: Any) -> TrainingConfig:
    base = {"model_family": "flux", "model_type": "lora", "output_dir": "out", "validation_prompt": 'a cat\'s "hat"'}
    return TrainingConfig.model_validate(base | values)


def run(name: str, base: str, remote: str = REMOTE, **values: Any) -> subprocess.CompletedProcess[str]:
    script = str(FOLDER / f"{name}_post_upload.py")
    template = TEMPLATE.replace("{python}", sys.executable).replace("{script}", script)
    assert check_script("post_upload_script", template, config(**values)) == []
    words = expand(template, values_of(config(**values), 8, "out/checkpoint-8", remote))
    bases = dict.fromkeys(("REPLICATE_API_BASE", "WAVESPEED_API_BASE", "FAL_QUEUE_BASE"), base)
    environ = dict(os.environ) | KEYS | bases | {"INFERENCE_POLL_SECONDS": "0.01", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("name", "path", "authorization", "weights"),
    [
        ("replicate", "/v1/models/black-forest-labs/flux-dev-lora/predictions", "Bearer canary-r", "lora_weights"),
        ("wavespeed", "/api/v3/wavespeed-ai/flux-dev-lora", "Bearer canary-w", "loras"),
        ("fal", "/fal-ai/flux-lora", "Key canary-f", "loras"),
    ],
)
def test_a_picture_is_asked_for_and_waited_for(
    serve: Any, name: str, path: str, authorization: str, weights: str
) -> None:
    service = Service()
    done = run(name, serve(service))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "https://pictures/1.png\n"
    method, place, key, body = service.seen[0]
    assert (method, place, key) == ("POST", path, authorization)
    wanted = body.get("input", body)
    assert wanted["prompt"] == 'a cat\'s "hat"'
    address = f"{REMOTE}/pytorch_lora_weights.safetensors"
    assert wanted[weights] in (address, [{"path": address, "scale": 1.0}])
    assert len(service.seen) >= 4  # asked for, twice not ready, ready
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["replicate", "wavespeed", "fal"])
def test_what_goes_wrong_there_is_said_and_what_may_pass_can_be_tried_again(serve: Any, name: str) -> None:
    failed = run(name, serve(Service(fails=True)))
    assert failed.returncode == 1
    assert "failed" in failed.stderr
    assert run(name, serve(Service(refuses=503))).returncode == 75
    assert run(name, serve(Service(refuses=401))).returncode == 1


def test_where_there_is_no_web_address_the_hub_is_used(serve: Any) -> None:
    service = Service(pending=0)
    done = run("replicate", serve(service), remote="s3://bucket/x", hub_model_id="me/model")
    assert done.returncode == 0, done.stderr
    assert service.seen[0][3]["input"]["lora_weights"] == "me/model"
    lost = run("replicate", serve(service), remote="")
    assert lost.returncode == 1
    assert "an empty --remote is no web address" in lost.stderr


def test_fal_wants_flux(serve: Any) -> None:
    service = Service()
    done = run("fal", serve(service), model_family="sdxl")
    assert done.returncode == 1
    assert "loads a LoRA of flux, not of sdxl" in done.stderr
    assert service.seen == []


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_the_second_device_draws_with_the_lora(tiny_flux: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    checkpoint = tmp_path / "checkpoint-8"
    checkpoint.mkdir()
    weight = json.loads((tiny_flux / "transformer" / "config.json").read_text())
    size = weight["num_attention_heads"] * weight["attention_head_dim"]
    place = "transformer.transformer_blocks.0.attn.to_q"
    down, up = torch.zeros(2, size), torch.zeros(size, 2)
    lora = {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up}
    save_file(lora, checkpoint / "pytorch_lora_weights.safetensors")
    words = [sys.executable, str(FOLDER / "use_second_gpu.py"), "--local", str(checkpoint), "--prompt", "it's a cat"]
    words += ["--base_model", str(tiny_flux), "--device", "cpu", "--steps", "1", "--size", "32"]
    words += ["--output", str(tmp_path / "pictures" / "000008.png")]
    environ = dict(os.environ) | {"MAX_SEQUENCE_LENGTH": "16"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("000008.png")
    assert (tmp_path / "pictures" / "000008.png").is_file()
