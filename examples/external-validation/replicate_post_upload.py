"""Draws the prompt on Replicate with the LoRA that was just published; needs REPLICATE_API_TOKEN.

post_upload_script = "python examples/external-validation/replicate_post_upload.py --remote {remote_checkpoint_path}
    --model_family {model_family} --model_type {model_type} --lora_type {lora_type} --hub_model_id {huggingface_path}
    --prompt {validation_prompt}"
"""

from __future__ import annotations

import os

from inference import call, find_weights, parse_arguments, read_key, report, wait_for

BASE = os.environ.get("REPLICATE_API_BASE", "https://api.replicate.com")
MODELS = {"flux": "black-forest-labs/flux-dev-lora"}


def main() -> None:
    """Asks for one picture and waits for it."""
    wishes = parse_arguments("Draws a prompt on Replicate with the LoRA that was just published.")
    weights = find_weights(wishes)
    model = wishes.model or MODELS.get(wishes.model_family)
    if not model:
        raise SystemExit(f"no model is known for the family {wishes.model_family!r}: name one with --model owner/name")
    key = f"Bearer {read_key('REPLICATE_API_TOKEN')}"
    wanted = {"prompt": wishes.prompt, "lora_weights": weights, "lora_scale": wishes.scale}
    begun = call(f"{BASE}/v1/models/{model}/predictions", key, {"input": wanted})
    done = wait_for(lambda: call(f"{BASE}/v1/predictions/{begun['id']}", key), wishes.timeout)
    output = done.get("output") or []
    report(wishes, output if isinstance(output, list) else [output], done)


if __name__ == "__main__":
    main()
