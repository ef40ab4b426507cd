"""Draws the prompt with the newest Flux LoRA on a second GPU, while training goes on on the first; nothing is uploaded.

validation_method = "external-script", validation_external_background = true, and validation_external_script =
    "python examples/external-validation/use_second_gpu.py --local {local_checkpoint_path} --prompt {validation_prompt}
    --base_model black-forest-labs/FLUX.1-dev --output pictures/{global_step:06d}.png"
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> None:
    """Loads the pipeline with the LoRA and draws one picture."""
    parser = argparse.ArgumentParser(description="Draws a prompt with a Flux LoRA on a second GPU.")
    parser.add_argument("--local", type=Path, required=True, help="{local_checkpoint_path}")
    parser.add_argument("--prompt", required=True, help="{validation_prompt}")
    parser.add_argument("--base_model", default="black-forest-labs/FLUX.1-dev", help="Hub id or folder")
    parser.add_argument("--output", type=Path, default=Path("picture.png"), help="the picture's file")
    parser.add_argument("--device", default="cuda:1", help="where to draw")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--seed", type=int, default=0)
    wishes = parser.parse_args()
    if not wishes.local.is_dir():
        sys.exit(f"{wishes.local} is no checkpoint folder")
    wishes.output.parent.mkdir(parents=True, exist_ok=True)
    draw(wishes)
    sys.stdout.write(f"{wishes.output.resolve()}\n")


def draw(wishes: argparse.Namespace) -> None:
    """Draws and saves; torch is loaded only here, so that a mistake in the arguments shows at once."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import torch
    from diffusers import FluxPipeline

    dtype = torch.float32 if wishes.device == "cpu" else torch.bfloat16
    pipeline = FluxPipeline.from_pretrained(wishes.base_model, dtype=dtype)
    pipeline.load_lora_weights(wishes.local)
    pipeline.to(wishes.device)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        wishes.prompt,
        height=wishes.size,
        width=wishes.size,
        num_inference_steps=wishes.steps,
        guidance_scale=wishes.guidance,
        max_sequence_length=int(os.environ.get("MAX_SEQUENCE_LENGTH", "512")),
        generator=torch.Generator("cpu").manual_seed(wishes.seed),
    ).images[0]
    picture.save(wishes.output)


if __name__ == "__main__":
    main()
