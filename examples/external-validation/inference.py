"""What the three scripts for inference services share: arguments, requests, waiting, and where the weights are."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = "pytorch_lora_weights.safetensors"
POLL_S = float(os.environ.get("INFERENCE_POLL_SECONDS", "2"))
REQUEST_TIMEOUT_S = 60
TEMPORARY = 75  # EX_TEMPFAIL: with `script_retries` the run calls the script again


def parse_arguments(description: str) -> argparse.Namespace:
    """Reads the arguments that post_upload_script fills in."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--remote", default="", help="{remote_checkpoint_path}: where the upload stands")
    parser.add_argument("--local", default="", help="{local_checkpoint_path}")
    parser.add_argument("--hub_model_id", default="", help="{huggingface_path}: used where --remote is no web address")
    parser.add_argument("--model_family", default="", help="{model_family}")
    parser.add_argument("--model_type", default="lora", help="{model_type}")
    parser.add_argument("--lora_type", default="standard", help="{lora_type}")
    parser.add_argument("--prompt", required=True, help="{validation_prompt}")
    parser.add_argument("--model", default="", help="the service's model, if not the usual one of the family")
    parser.add_argument("--scale", type=float, default=1.0, help="strength of the LoRA")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the picture")
    parser.add_argument("--output", type=Path, help="folder for the answer, as JSON")
    return parser.parse_args()


def find_weights(wishes: argparse.Namespace) -> str:
    """The address of the LoRA that a service can load; ends the script where there is none."""
    if wishes.model_type != "lora" or wishes.lora_type != "standard":
        sys.exit("only a standard LoRA can be loaded there: nothing is asked for")
    if wishes.remote.startswith(("https://", "http://")):
        address = wishes.remote.rstrip("/")
        return address if address.endswith(".safetensors") else f"{address}/{WEIGHTS}"
    if wishes.hub_model_id:
        return str(wishes.hub_model_id)
    sys.exit(f"{wishes.remote or 'an empty --remote'} is no web address, and there is no --hub_model_id")


def read_key(name: str) -> str:
    """A key from the environment; never an argument, which everybody on the machine could see."""
    return os.environ.get(name) or sys.exit(f"{name} is not set")


def call(url: str, authorization: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request; what may pass by itself ends the script with 75."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": authorization, "Content-Type": "application/json", "User-Agent": "flowtuner-example"}
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}\n")
        sys.exit(TEMPORARY if error.code == 429 or error.code >= 500 else 1)
    except (urllib.error.URLError, TimeoutError) as error:
        sys.stderr.write(f"{url} did not answer: {error}\n")
        sys.exit(TEMPORARY)


def wait_for(look: Callable[[], dict[str, Any]], timeout_s: float) -> dict[str, Any]:
    """Asks again and again until the state is final; `look` gives an answer with a `status`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = look()
        status = str(answer.get("status", "")).lower()
        if status in ("succeeded", "completed"):
            return answer
        if status in ("failed", "canceled", "cancelled", "error"):
            sys.exit(f"it {status}: {answer.get('error') or 'no reason was given'}")
        if time.monotonic() > deadline:
            sys.exit(f"no picture after {timeout_s:.0f} s, the state is {status!r}")
        time.sleep(POLL_S)


def report(wishes: argparse.Namespace, pictures: list[str], answer: dict[str, Any]) -> None:
    """Says where the pictures are, and keeps the service's whole answer if a folder was named."""
    for picture in pictures:
        sys.stdout.write(f"{picture}\n")
    if wishes.output:
        wishes.output.mkdir(parents=True, exist_ok=True)
        (wishes.output / "answer.json").write_text(json.dumps(answer, indent=2))
