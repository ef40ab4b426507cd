"""Draws the prompt on WaveSpeed with the LoRA that was just published, and waits for it; needs WAVESPEED_API_KEY.

post_upload_script = "python examples/external-validation/wavespeed_post_upload.py --remote {remote_checkpoint_path}
    --model_family {model_family} --model_type {model_type} --lora_type {lora_type} --hub_model_id {huggingface_path}
    --prompt {validation_prompt}"
"""

from __future__ import annotations

import os

from inference import call, find_weights, parse_arguments, read_key, report, wait_for

BASE = os.environ.get("WAVESPEED_API_BASE", "https://api.wavespeed.ai")
MODELS = {"flux": "wavespeed-ai/flux-dev-lora", "sdxl": "wavespeed-ai/sdxl-lora"}


def main() -> None:
    """Asks for one picture and waits for it."""
    wishes = parse_arguments("Draws a prompt on WaveSpeed with the LoRA that was just published.")
    weights = find_weights(wishes)
    model = wishes.model or MODELS.get(wishes.model_family)
    if not model:
        raise SystemExit(f"no model is known for the family {wishes.model_family!r}: name one with --model owner/name")
    key = f"Bearer {read_key('WAVESPEED_API_KEY')}"
    wanted = {"prompt": wishes.prompt, "loras": [{"path": weights, "scale": wishes.scale}]}
    begun = call(f"{BASE}/api/v3/{model}", key, wanted)["data"]
    done = wait_for(lambda: dict(call(f"{BASE}/api/v3/predictions/{begun['id']}/result", key)["data"]), wishes.timeout)
    report(wishes, done.get("outputs") or [], done)


if __name__ == "__main__":
    main()
