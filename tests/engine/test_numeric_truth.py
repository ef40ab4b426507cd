"""The engine's numbers against a training written by hand, and its results in diffusers' and peft's own hands."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowtuner.engine.loop import NOISE
from flowtuner.engine.seed import mix

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
torch.set_num_threads(1)

PLAIN = {"resolution": None, "aspect_ratio": None}


def test_losses_rates_and_weights_are_those_of_a_loop_written_by_hand(start, tiny_run):
    values = tiny_run | {
        "train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "caption_dropout_probability": 0,
        "snr_gamma": 5,
        "grad_clip_method": "norm",
        "max_grad_norm": 0.05,
        "lr_end": 1e-5,
    }
    run = start(values)
    model, losses, rates = train_by_hand(Path(values["pretrained_model_name_or_path"]), run.session)
    run.session.train(6)
    assert np.allclose(losses, list(run.losses().values()), rtol=1e-5)
    measured = [data["learning_rate"] for type, data in run.events if type == "training.metric"]
    assert np.allclose(rates, measured, rtol=1e-9)
    mine = run.session._trainer.model.state_dict()
    assert all(torch.allclose(tensor, mine[name], atol=2e-6) for name, tensor in model.state_dict().items())


def train_by_hand(source: Path, session) -> tuple[torch.nn.Module, list[float], list[float]]:
    """Six updates in plain torch and diffusers, with all text padded to 300 tokens and nothing cached."""
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    model = PixArtTransformer2DModel.from_pretrained(source / "transformer").train()
    alphas = DPMSolverMultistepScheduler.from_pretrained(source / "scheduler").alphas_cumprod
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    encode = open_encoders(source)
    sampler, chance = session._trainer.feed.sampler, torch.Generator()
    losses, rates = [], []
    for step in range(6):
        total = 0.0
        for number in (2 * step, 2 * step + 1):
            latents, embeds, mask = encode(sampler.batch(number))
            chance.manual_seed(mix(1337, NOISE, number))
            noise = torch.randn(latents.shape, generator=chance)
            times = torch.randint(0, 1000, (len(latents),), generator=chance)
            alpha = alphas[times][:, None, None, None]
            noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
            output = model(noisy, embeds, times, PLAIN, encoder_attention_mask=mask, return_dict=False)[0]
            ratio = alphas[times] / (1 - alphas[times])
            errors = ((output.chunk(2, 1)[0] - noise) ** 2).mean((1, 2, 3)) * ratio.clamp(max=5) / ratio
            (errors.mean() / 2).backward()
            total += errors.mean().item() / 2
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        number = step + 1  # two updates of warmup, then half a cosine down to the end rate
        curve = 0.5 * (1 + math.cos(math.pi * (number - 2) / 4))
        rates.append(1e-3 * number / 2 if number <= 2 else 1e-5 + (1e-3 - 1e-5) * curve)
        optimizer.param_groups[0]["lr"] = rates[-1]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return model, losses, rates


def open_encoders(source: Path):
    from diffusers import AutoencoderKL
    from transformers import T5EncoderModel, T5Tokenizer

    vae = AutoencoderKL.from_pretrained(source / "vae").eval()
    tokenizer = T5Tokenizer.from_pretrained(source / "tokenizer")
    text_encoder = T5EncoderModel.from_pretrained(source / "text_encoder").eval()

    @torch.no_grad()
    def encode(draws):
        pixels = [np.asarray(Image.open(draw.sample.path).convert("RGB"), dtype=np.float32) for draw in draws]
        stacked = torch.from_numpy(np.stack(pixels) / 127.5 - 1).permute(0, 3, 1, 2)
        latents = vae.encode(stacked).latent_dist.mode() * vae.config.scaling_factor
        captions = [draw.caption for draw in draws]
        tokens = tokenizer(captions, padding="max_length", max_length=300, truncation=True, return_tensors="pt")
        return latents, text_encoder(**tokens)[0], tokens["attention_mask"]

    return encode


def test_the_released_pipeline_draws_what_validation_showed(start, tiny_run):
    from diffusers import DiffusionPipeline

    values = tiny_run | {
        "use_ema": True,
        "validation_disable": False,
        "validation_disable_unconditional": True,
        "validation_prompt": "a red circle",
        "validation_resolution": "32x32",
        "validation_num_inference_steps": 4,
        "validation_guidance": 3.0,
        "validation_seed": 5,
    }
    run = start(values)
    run.session.train(6)
    shown = Image.open(run.session.validate()["images"][0])
    run.session.save_release()
    pipeline = DiffusionPipeline.from_pretrained(run.output / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        "a red circle",
        negative_prompt=run.session.config.validation_negative_prompt,
        width=32,
        height=32,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        use_resolution_binning=False,
        clean_caption=False,
    ).images[0]
    assert np.abs(np.asarray(drawn, dtype=int) - np.asarray(shown, dtype=int)).max() <= 1


def test_peft_alone_gives_the_trained_model_from_the_saved_adapter(start, tiny_run):
    from diffusers import PixArtTransformer2DModel
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    values = tiny_run | {"model_type": "lora", "lora_rank": 4, "lora_alpha": 8, "learning_rate": 1e-2}
    run = start(values)
    run.session.train(6)
    run.session.save_release()
    model = PixArtTransformer2DModel.from_pretrained(Path(values["pretrained_model_name_or_path"]) / "transformer")
    before = answer(model)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=targets), model)
    saved = load_file(run.output / "pytorch_lora_weights.safetensors")
    set_peft_model_state_dict(model, {name.removeprefix("transformer."): tensor for name, tensor in saved.items()})
    assert torch.allclose(answer(model), answer(run.session._trainer.model), atol=1e-5)
    assert not torch.allclose(answer(model), before, atol=1e-2)


@torch.no_grad()
def answer(model: torch.nn.Module) -> torch.Tensor:
    chance = torch.Generator().manual_seed(3)
    noisy = torch.randn(1, 4, 8, 8, generator=chance)
    embeds = torch.randn(1, 5, model.config.caption_channels, generator=chance)
    mask = torch.ones(1, 5)
    return model.eval()(noisy, embeds, torch.tensor([5]), PLAIN, encoder_attention_mask=mask, return_dict=False)[0]
