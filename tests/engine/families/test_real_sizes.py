"""The real configurations without their weights: how large they are, and which of their layers an adapter finds."""

import diffusers
import pytest
import torch

from flowtuner.engine.families import open_family

UNET_XL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
PIXART = {
    "sample_size": 128,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "use_additional_conditions": False,
}
SD35 = {"qk_norm": "rms_norm"}
SD3_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
# Family, what the flavour's configuration sets beside the class's defaults, millions of parameters, adapted layers.
SIZES = {
    "sd1x 1.5": ("sd1x", {"sample_size": 64, "cross_attention_dim": 768}, 860, 128),
    "sdxl base-1.0": ("sdxl", UNET_XL, 2567, 560),
    "pixart_sigma 600M": ("pixart_sigma", PIXART | {"num_layers": 28}, 611, 224),
    "pixart_sigma 900M": ("pixart_sigma", PIXART | {"num_layers": 42}, 908, 336),
    "flux dev": ("flux", {"guidance_embeds": True}, 11901, 266),
    "sd3 medium": (
        "sd3",
        SD3_MEDIUM | SD35 | {"pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13))},
        2243,
        148,
    ),
    "sd3 large": (
        "sd3",
        SD35 | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192},
        8057,
        152,
    ),
    "sd3 medium-3.0": ("sd3", SD3_MEDIUM | {"pos_embed_max_size": 192}, 2028, 96),
    "sana1.0-1.6b-1024": ("sana", {}, 1604, 160),
    "sana1.5-4.8b-1024": ("sana", {"num_layers": 60, "qk_norm": "rms_norm_across_heads"}, 4722, 480),
    "qwen_image v1.0": ("qwen_image", {}, 20430, 240),
    "z_image": ("z_image", {}, 6155, 136),
    "wan t2v-480p-1.3b-2.1": ("wan", {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}, 1419, 240),
    "wan t2v-480p-14b-2.1": ("wan", {}, 14288, 320),
}


QUICK = ("sd3 medium-3.0", "sana1.0-1.6b-1024", "z_image", "wan t2v-480p-1.3b-2.1")


@pytest.mark.parametrize(
    ("name", "settings", "millions", "layers"),
    [pytest.param(*entry, id=key, marks=() if key in QUICK else pytest.mark.slow) for key, entry in SIZES.items()],
)
def test_real_models_have_their_published_size_and_the_layers_to_adapt(configure, name, settings, millions, layers):
    family = open_family(name)("owner/name", configure(model_family=name))
    with torch.device("meta"):
        model = getattr(diffusers, family.parts[family.component].loads)(**settings)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == pytest.approx(millions, abs=1)
    adapted = [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(f".{path}".endswith(f".{end}") for end in family.lora_targets)
    ]
    assert len(adapted) == layers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "latent", "text"),
    [
        ("sd3", (16, 128, 128), {"prompt_embeds": (333, 4096), "pooled_prompt_embeds": (2048,)}),
        ("sana", (32, 32, 32), {"prompt_embeds": (40, 2304), "prompt_attention_mask": (40,)}),
        ("qwen_image", (16, 128, 128), {"prompt_embeds": (40, 3584)}),
        ("flux", (16, 128, 128), {"prompt_embeds": (512, 4096), "pooled_prompt_embeds": (768,)}),
        ("wan", (16, 13, 60, 104), {"prompt_embeds": (512, 4096)}),
    ],
)
def test_a_step_at_real_size_has_the_right_shapes(configure, name, latent, text):
    """One pass over tensors that hold nothing: only the shapes are computed."""
    _, settings, _, _ = next(entry for entry in SIZES.values() if entry[0] == name)
    family = open_family(name)("owner/name", configure(model_family=name))
    with torch.device("meta"), torch.no_grad():
        model = getattr(diffusers, family.parts[family.component].loads)(**settings).to(torch.bfloat16)
        rows = {key: torch.ones(1, *shape, dtype=torch.bfloat16) for key, shape in text.items()}
        noisy, steps = torch.ones(1, *latent, dtype=torch.bfloat16), torch.full((1,), 500.0)
        assert family.predict(model, noisy, steps, rows).shape == noisy.shape
