"""Resumed equals uninterrupted, to the byte, for every schedule, every optimizer and mixed data sets."""

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowtuner.engine.formats import FORMATS
from flowtuner.engine.limits import OPTIMIZERS, find_optimizer_faults
from flowtuner.options.lycoris import ALGORITHMS

pytestmark = pytest.mark.slow
torch.set_num_threads(1)

SCHEDULES = ("linear", "sine", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
ADAPTER = {"model_type": "lora", "lora_rank": 4, "lora_dropout": 0.3}
ON_THE_WAY = {
    "vae_cache_ondemand": True,
    "text_cache_ondemand": True,
    "dataloader_prefetch": True,
    "dataloader_prefetch_qlen": 4,
}
MODES = {
    **{f"schedule {name}": {"lr_scheduler": name, "lr_num_cycles": 2} for name in SCHEDULES},
    **{
        name: {"optimizer": name, "gradient_accumulation_steps": 2}
        for name in OPTIMIZERS
        if not list(find_optimizer_faults(name))
    },
    "sgd with momentum": {"optimizer": "torch-sgd", "optimizer_config": "momentum=0.9,nesterov=true"},
    "amsgrad": {"optimizer": "torch-adamw", "optimizer_config": "amsgrad=true"},
    "centered rmsprop": {"optimizer": "torch-rmsprop", "optimizer_config": "centered=true,momentum=0.5"},
    "gaussian start": ADAPTER | {"lora_init_type": "gaussian"},
    "DoRA": ADAPTER | {"use_dora": True, "use_ema": True, "mixed_precision": "bf16", "optimizer": "adamw_bf16"},
    "olora": ADAPTER | {"lora_init_type": "olora"},
    "ComfyUI's names": ADAPTER | {"lora_format": "comfyui"},
    "LyCORIS as built in": ADAPTER | {"lora_type": "lycoris", "use_ema": True, "gradient_accumulation_steps": 2},
    **{
        f"LyCORIS {algorithm}": ADAPTER
        | {
            "lora_type": "lycoris",
            "lycoris_config": {
                "algo": algorithm,
                "multiplier": 1.0,
                "linear_dim": 4,
                "linear_alpha": 2,
                "rank_dropout": 0.2,
                "use_scalar": algorithm == "lokr",
                "apply_preset": {"target_module": ["Attention"]},
            },
        }
        for algorithm in ALGORITHMS
    },
    **{
        f"{adapter} over {name}": ADAPTER | {"base_model_precision": name, "lora_type": adapter, "optimizer": optimizer}
        for name in FORMATS
        for adapter, optimizer in (("standard", "torch-adamw"), ("lycoris", "optimi-lion"))
        if not FORMATS[name].needs_cuda
    },
    "float16": {"mixed_precision": "fp16", "gradient_accumulation_steps": 2},
    "float16 adapter": ADAPTER | {"mixed_precision": "fp16", "base_model_precision": "fp16"},
    "rare EMA": {"use_ema": True, "ema_update_interval": 3},
    "rare EMA of an adapter": ADAPTER
    | {"use_ema": True, "ema_update_interval": 2, "gradient_accumulation_steps": 3, "ema_foreach_disable": True},
    "seed 0": {"seed": 0},
    "huber": {"loss_type": "huber", "snr_gamma": 5},
    "a tail in each epoch": {"train_batch_size": 3},
    "caches filled on the way, batches ahead": ON_THE_WAY,
    "nothing kept": {"vae_cache_disable": True, "text_cache_disable": True},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_two_resumes_change_nothing(start, tiny_run, mode):
    values = tiny_run | mode
    straight = start(values, "straight")
    straight.session.train(6)
    for reached in (1, 4):
        run = start(values)
        run.session.train(reached)
        run.session.save_checkpoint()
        run.session.train(reached + 1)  # lost with the process
    last = start(values)
    assert last.position["step"] == 4
    last.session.train(6)
    assert last.release() == straight.release()


@pytest.mark.parametrize(
    "mode",
    [
        {"max_train_steps": 30, "lr_scheduler": "polynomial"},
        {"max_train_steps": 0, "num_train_epochs": 2, "gradient_accumulation_steps": 3},
        ADAPTER | {"max_train_steps": 25, "train_batch_size": 1, "gradient_accumulation_steps": 2},
        ADAPTER | ON_THE_WAY | {"max_train_steps": 24, "data_backend_sampling": "uniform"},
    ],
    ids=["steps", "epochs", "adapter", "on the way"],
)
def test_mixed_data_sets_go_on_where_they_were(start, tiny_run, tmp_path, mode):
    values = tiny_run | mix_data_sets(tmp_path) | {"disable_bucket_pruning": True, "caption_dropout_probability": 0.2}
    straight = start(values | mode, "straight")
    total = straight.position["total_steps"]
    straight.session.train(total)
    chance, step = random.Random(1), 0
    while step < total:
        run = start(values | mode)
        assert run.position["step"] == step
        step = min(total, step + chance.randint(2, max(3, total // 3)))
        run.session.train(step)
        run.session.save_checkpoint()
        run.session.train(min(step + 2, total))  # lost with the process
    assert start(values | mode).release() == straight.release()


def mix_data_sets(root: Path) -> dict:
    """Five sets: several captions and repeats; random crops, at a probability or renewed; schedules; own batches."""
    entries = [
        entry_of(
            root,
            "lines",
            caption_strategy="textfile",
            repeats=2,
            caption_shuffle={"enable": True, "split_on": "space", "seed": 3},
        ),
        entry_of(root, "crops", crop=True, crop_aspect="random", crop_aspect_buckets=[1.0, 1.5], probability=0.4),
        entry_of(root, "renewed", crop=True, crop_aspect="square", vae_cache_clear_each_epoch=True, start_step=4),
        entry_of(root, "early", end_epoch=1),
        entry_of(
            root, "prompts", caption_strategy="instanceprompt", instance_prompt=["sks", "a sks"], train_batch_size=3
        ),
        {"id": "texts", "dataset_type": "text_embeds", "default": True, "cache_dir": str(root / "cache" / "mixed")},
    ]
    path = root / "mixed.json"
    path.write_text(json.dumps(entries))
    return {"data_backend_config": str(path)}


def entry_of(root: Path, name: str, **values) -> dict:
    folder = root / name
    folder.mkdir()
    for number, size in enumerate([(48, 32), (32, 48), (40, 40), (64, 32), (33, 47)] * 2):
        Image.effect_noise(size, 30 + number).convert("RGB").save(folder / f"{name}_{number}.png")
        lines = (f"line {line} of {number}" for line in range(1 + number % 4))
        (folder / f"{name}_{number}.txt").write_text("\n".join(lines))
    return {
        "id": name,
        "type": "local",
        "instance_data_dir": str(folder),
        "caption_strategy": "filename",
        "resolution": 32,
        "resolution_type": "pixel",
        "cache_dir_vae": str(root / "cache" / name),
    } | values
