"""The lines of Python with which people draw pictures with a trained model."""

from __future__ import annotations

from flowtuner.engine.card.facts import CardFacts
from flowtuner.engine.validation.prompts import validation_prompts

WEIGHTS = "pytorch_lora_weights.safetensors"
ANYWHERE = "owner/name"


def render_code(facts: CardFacts) -> str:
    """A whole script: it loads the model and draws one picture."""
    parts = [_load_full(facts)]
    if facts.is_lora:
        parts = [_load_lycoris(facts) if facts.config.lora_type == "lycoris" else _load_lora(facts)]
    return "\n".join([*parts, "", *_draw(facts)])


def _load_full(facts: CardFacts) -> str:
    return f"""import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({_place(facts)!r}, torch_dtype=torch.bfloat16)"""


def _load_lora(facts: CardFacts) -> str:
    if facts.family.loads_lora:
        return f"""import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({_base(facts)!r}, torch_dtype=torch.bfloat16)
pipeline.load_lora_weights({_place(facts)!r}, weight_name={WEIGHTS!r})"""
    # The pipeline has no loader of its own; the adapter carries its settings with it.
    part = facts.family.component
    return f"""import json

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open

pipeline = DiffusionPipeline.from_pretrained({_base(facts)!r}, torch_dtype=torch.bfloat16)
with safe_open(hf_hub_download({_place(facts)!r}, {WEIGHTS!r}), "pt") as file:
    settings = json.loads(file.metadata()["lora_adapter_metadata"])
    weights = {{name.removeprefix("{part}."): file.get_tensor(name) for name in file.keys()}}
settings = {{name.removeprefix("{part}."): value for name, value in settings.items()}}
inject_adapter_in_model(LoraConfig(**settings), pipeline.{part})
set_peft_model_state_dict(pipeline.{part}, weights)"""


def _load_lycoris(facts: CardFacts) -> str:
    part = facts.family.component
    return f"""import torch
from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download
from lycoris import create_lycoris_from_weights

pipeline = DiffusionPipeline.from_pretrained({_base(facts)!r}, torch_dtype=torch.bfloat16)
adapter, _ = create_lycoris_from_weights(1.0, hf_hub_download({_place(facts)!r}, {WEIGHTS!r}), pipeline.{part})
adapter.merge_to()"""


def _draw(facts: CardFacts) -> list[str]:
    config = facts.config
    prompts = [each.prompt for each in validation_prompts(config) if each.prompt]
    arguments = [
        f"    {(prompts or ['a prompt'])[0]!r},",
        f"    num_inference_steps={config.validation_num_inference_steps},",
        f"    guidance_scale={config.validation_guidance},",
    ]
    device = '"cuda" if torch.cuda.is_available() else "cpu"'
    if facts.family.frames_per_latent:
        frames = config.validation_num_video_frames or facts.family.usual_frames
        arguments += [f"    num_frames={frames},", '    output_type="pil",']
        shown = f'export_to_gif(frames, "film.gif", fps={facts.family.frames_per_second})'
        begin = ["from diffusers.utils import export_to_gif", "", f"pipeline.to({device})"]
        return [*begin, "frames = pipeline(", *arguments, ").frames[0]", shown]
    return [f"pipeline.to({device})", "picture = pipeline(", *arguments, ").images[0]", 'picture.save("picture.png")']


def _place(facts: CardFacts) -> str:
    named = facts.config.hub_model_id
    return named if named and "/" in named else ANYWHERE


def _base(facts: CardFacts) -> str:
    return facts.base_model or "path/to/the/base/model"
