"""The two configurations of the API tutorial load as they are written there."""

import json
from pathlib import Path

import pytest

from flowtuner.options import load

PIXART = {
    "--model_family": "pixart_sigma",
    "--model_flavour": "900M-1024-v0.6",
    "--model_type": "full",
    "--output_dir": "/workspace/output/pixart900m",
    "--train_batch_size": 2,
    "--gradient_accumulation_steps": 2,
    "--learning_rate": 0.0001,
    "--optimizer": "adamw_bf16",
    "--lr_scheduler": "cosine",
    "--lr_warmup_steps": 500,
    "--max_train_steps": 1800,
    "--num_train_epochs": 0,
    "--validation_prompt": "a studio portrait of <token> wearing a leather jacket",
    "--validation_guidance": 3.8,
    "--validation_resolution": "1024x1024",
    "--validation_num_inference_steps": 28,
    "--cache_dir_vae": "/data/cache/vae/pixart",
    "--seed": 1337,
    "--resume_from_checkpoint": "latest",
    "--base_model_precision": "bf16",
    "--dataloader_prefetch": True,
    "--report_to": "none",
    "--checkpoints_total_limit": 4,
    "--validation_seed": 12345,
    "--data_backend_config": "pixart-api-demo/multidatabackend.json",
}
PIXART_DATA = [
    {
        "id": "pixart-camera",
        "type": "local",
        "dataset_type": "image",
        "instance_data_dir": "/data/datasets/pseudo-camera-10k",
        "caption_strategy": "filename",
        "resolution": 1.0,
        "resolution_type": "area",
        "minimum_image_size": 0.25,
        "maximum_image_size": 1.0,
        "target_downsample_size": 1.0,
        "cache_dir_vae": "/data/cache/vae/pixart/pseudo-camera-10k",
        "crop": True,
        "crop_style": "random",
        "crop_aspect": "square",
        "metadata_backend": "discovery",
    },
    {
        "id": "pixart-text-embeds",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": "/data/cache/text/pixart/pseudo-camera-10k",
        "write_batch_size": 128,
    },
]
KONTEXT = {
    "--model_family": "flux",
    "--model_flavour": "kontext",
    "--model_type": "lora",
    "--lora_type": "lycoris",
    "--output_dir": "/workspace/output/kontext",
    "--train_batch_size": 1,
    "--gradient_accumulation_steps": 4,
    "--learning_rate": 0.00001,
    "--optimizer": "optimi-lion",
    "--lr_scheduler": "cosine",
    "--lr_warmup_steps": 200,
    "--max_train_steps": 12000,
    "--num_train_epochs": 0,
    "--validation_prompt": "a cinematic 1024px product photo of <token>",
    "--validation_guidance": 2.5,
    "--validation_resolution": "1024x1024",
    "--validation_num_inference_steps": 30,
    "--cache_dir_vae": "/data/cache/vae/kontext",
    "--seed": 777,
    "--resume_from_checkpoint": "latest",
    "--base_model_precision": "int8-quanto",
    "--dataloader_prefetch": True,
    "--report_to": "wandb",
    "--lora_rank": 16,
    "--lora_dropout": 0.05,
    "--conditioning_multidataset_sampling": "combined",
    "--clip_skip": 2,
    "--data_backend_config": "kontext-api-demo/multidatabackend.json",
}
KONTEXT_DATA = [
    {
        "id": "kontext-edit",
        "type": "local",
        "dataset_type": "image",
        "instance_data_dir": "/data/datasets/kontext/edit",
        "conditioning_data": ["kontext-reference"],
        "resolution": 1024,
        "resolution_type": "pixel_area",
        "caption_strategy": "textfile",
        "minimum_image_size": 768,
        "maximum_image_size": 1536,
        "target_downsample_size": 1024,
        "cache_dir_vae": "/data/cache/vae/kontext/edit",
        "crop": True,
        "crop_style": "random",
        "crop_aspect": "square",
    },
    {
        "id": "kontext-reference",
        "type": "local",
        "dataset_type": "conditioning",
        "instance_data_dir": "/data/datasets/kontext/reference",
        "conditioning_type": "reference_strict",
        "resolution": 1024,
        "resolution_type": "pixel_area",
        "cache_dir_vae": "/data/cache/vae/kontext/reference",
    },
    {
        "id": "kontext-text-embeds",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": "/data/cache/text/kontext",
    },
]


@pytest.fixture
def environments(tmp_path, monkeypatch):
    """Writes both environments, with the folders of the tutorial moved under the test's own."""
    monkeypatch.chdir(tmp_path)
    for name, options, data in (
        ("pixart-api-demo", PIXART, PIXART_DATA),
        ("kontext-api-demo", KONTEXT, KONTEXT_DATA),
    ):
        folder = tmp_path / "config" / name
        folder.mkdir(parents=True)
        for file, content in (("config.json", options), ("multidatabackend.json", data)):
            text = json.dumps(content, indent=2).replace('"/data/', f'"{tmp_path}/data/')
            (folder / file).write_text(text.replace('"/workspace/', f'"{tmp_path}/workspace/'))
    for folder in ("pseudo-camera-10k", "kontext/edit", "kontext/reference"):
        (tmp_path / "data" / "datasets" / folder).mkdir(parents=True)
    return tmp_path


def test_pixart_seed_loads_as_written(environments):
    loaded = load(env="pixart-api-demo", environ={})
    config = loaded.config
    assert config.model_family == "pixart_sigma"
    assert config.base_model_precision == "bf16"
    assert (config.max_train_steps, config.num_train_epochs, config.lr_warmup_steps) == (1800, 0, 500)
    assert config.output_dir == environments / "workspace/output/pixart900m"
    assert [entry.id for entry in loaded.datasets] == ["pixart-camera", "pixart-text-embeds"]
    camera = loaded.datasets[0]
    assert (camera.resolution, camera.resolution_type, camera.crop) == (1.0, "area", True)
    assert camera.cache_dir_vae == environments / "data/cache/vae/pixart/pseudo-camera-10k"
    assert loaded.warnings == ()
    assert loaded.accepted_only() == []


def test_kontext_seed_loads_as_written_and_says_what_has_no_effect_yet(environments):
    loaded = load(env="kontext-api-demo", environ={})
    config = loaded.config
    assert (config.model_family, config.lora_type, config.clip_skip) == ("flux", "lycoris", 2)
    assert config.base_model_precision == "int8-quanto"
    assert config.lycoris_config["algo"] == "lokr"
    assert loaded.datasets[0].conditioning_data == ["kontext-reference"]
    assert loaded.datasets[1].caption_strategy == "filename"
    assert not [name for name in loaded.accepted_only() if "conditioning" in name]


def test_inline_fast_path_loads_with_form_strings_over_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "demo").mkdir()
    data = [
        {
            "id": "demo-images",
            "type": "local",
            "dataset_type": "image",
            "instance_data_dir": str(tmp_path / "demo"),
            "caption_strategy": "textfile",
            "resolution": 1024,
            "resolution_type": "pixel_area",
        },
        {
            "id": "demo-text-embeds",
            "type": "local",
            "dataset_type": "text_embeds",
            "default": True,
            "cache_dir": str(tmp_path / "cache"),
        },
    ]
    Path("config/multidatabackend-once.json").write_text(json.dumps(data))
    form = {
        "__active_tab__": "model",
        "--model_family": "pixart_sigma",
        "--model_type": "full",
        "--model_flavour": "900M-1024-v0.6",
        "--pretrained_model_name_or_path": "terminusresearch/pixart-900m-1024-ft-v0.6",
        "--output_dir": str(tmp_path / "out"),
        "--data_backend_config": "config/multidatabackend-once.json",
        "--train_batch_size": "1",
        "--learning_rate": "0.0001",
        "--max_train_steps": "200",
        "--num_train_epochs": "0",
        "--validation_prompt": "test shot of <token>",
    }
    config = load(values=form, environ={}).config
    assert (config.train_batch_size, config.learning_rate, config.max_train_steps) == (1, 1e-4, 200)
    assert config.pretrained_model_name_or_path == "terminusresearch/pixart-900m-1024-ft-v0.6"
    assert config.data_backend_config == tmp_path / "config/multidatabackend-once.json"
    assert config.optimizer == "adamw_bf16"
