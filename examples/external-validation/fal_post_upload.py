"""Draws the prompt on fal.ai with the Flux LoRA that was just published; needs FAL_KEY and a flux family.

post_upload_script = "python examples/external-validation/fal_post_upload.py --remote {remote_checkpoint_path}
    --model_family {model_family} --model_type {model_type} --lora_type {lora_type} --hub_model_id {huggingface_path}
    --prompt {validation_prompt}"
"""

from __future__ import annotations

import os

from inference import call, find_weights, parse_arguments, read_key, report, wait_for

BASE = os.environ.get("FAL_QUEUE_BASE", "https://queue.fal.run")
MODEL = "fal-ai/flux-lora"


def main() -> None:
    """Asks for one picture and waits for it."""
    wishes = parse_arguments("Draws a prompt on fal.ai with the Flux LoRA that was just published.")
    if "flux" not in wishes.model_family:
        raise SystemExit(f"fal.ai's {MODEL} loads a LoRA of flux, not of {wishes.model_family or 'an unnamed family'}")
    weights = find_weights(wishes)
    key = f"Key {read_key('FAL_KEY')}"
    wanted = {"prompt": wishes.prompt, "loras": [{"path": weights, "scale": wishes.scale}]}
    place = f"{BASE}/{wishes.model or MODEL}"
    begun = call(place, key, wanted)
    request = f"{place}/requests/{begun['request_id']}"
    wait_for(lambda: call(f"{request}/status", key), wishes.timeout)
    done = call(request, key)
    report(wishes, [image["url"] for image in done.get("images", [])], done)


if __name__ == "__main__":
    main()
