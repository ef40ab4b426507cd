"""Both configurations of the API tutorial, shrunk to tiny models, from the dataloader file to verified copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from flows.train import train
from flowtuner.durable import read_json
from flowtuner.engine.adapters.lycoris import open_adapter
from flowtuner.engine.families import open_family
from flowtuner.engine.families.parts.weights import read_metadata
from tests.conftest import draw_pictures
from tests.fakes.s3.servers import KEYS, REGION, moto
from tests.options.test_seeds import KONTEXT, KONTEXT_DATA, PIXART, PIXART_DATA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("prefect_api")]

WEIGHTS = "pytorch_lora_weights.safetensors"
SIZES = {"resolution": 32, "resolution_type": "pixel_area"}
LIMITS = {"minimum_image_size": 24, "maximum_image_size": 48, "target_downsample_size": 32}
# What is smaller than in the tutorial: pictures, the number of steps, and the model they train.
SMALL = {
    "aspect_bucket_alignment": 16,
    "lr_warmup_steps": 1,
    "max_train_steps": 4,
    "checkpoint_step_interval": 2,
    "validation_step_interval": 2,
    "validation_resolution": "32x32",
    "validation_num_inference_steps": 2,
}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    # A flow's parameters are kept for everybody to read: it takes credentials from blocks or from the environment.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secret_key"])
    with moto() as url:
        client = boto3.client("s3", endpoint_url=url, region_name=REGION)
        client.create_bucket(Bucket="models")
        yield client, {"provider": "s3", "bucket": "models", "endpoint_url": url, "region": REGION}
        client.close()


def options(
    name: str, root: Path, written: dict[str, Any], data: list[dict[str, Any]], entry: dict[str, Any]
) -> dict[str, Any]:
    text = json.dumps(data).replace('"/data/', f'"{root}/data/')
    dataloader = root / "multidatabackend.json"
    dataloader.write_text(text)
    plain = {name.removeprefix("--"): value for name, value in written.items()}
    return (
        plain
        | SMALL
        | {
            "output_dir": str(root / name),
            "cache_dir_vae": str(root / "cache"),
            "data_backend_config": str(dataloader),
            "ephemeral": "no",
            "publishing_config": [{"provider": "folder", "path": str(root / "share"), "name": "share"}, entry],
        }
    )


def published(result: dict[str, Any]) -> set[tuple[str, bool]]:
    return {(row["what"], row["verified"]) for row in result["published"]}


def test_the_kontext_run_trains_lycoris_over_int8_and_is_published_twice(tmp_path: Path, bucket: Any) -> None:
    client, entry = bucket
    (tmp_path / "share").mkdir()
    model = open_family("flux").tiny(tmp_path / "model", kontext=True, layers=1)
    edits = draw_pictures(tmp_path / "data/datasets/kontext/edit", 8)
    for path in edits.iterdir():
        path.with_suffix(".txt").write_text(path.stem.replace("_", " "))
        reference = tmp_path / "data/datasets/kontext/reference" / path.name
        reference.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.convert("L").save(reference)
    data = [one | SIZES | (LIMITS if one["id"] == "kontext-edit" else {}) for one in KONTEXT_DATA[:2]]
    values = options("kontext", tmp_path, KONTEXT, [*data, KONTEXT_DATA[2]], entry)

    result = train(config=values | {"pretrained_model_name_or_path": str(model)})

    assert isinstance(result, dict)
    assert published(result) == {("checkpoint-2", True), ("checkpoint-4", True), ("release", True)}
    release = tmp_path / "share" / "kontext"
    keys = {one["Key"] for one in client.list_objects_v2(Bucket="models")["Contents"]}
    assert {f"kontext/{WEIGHTS}", "kontext/lycoris_config.json", f"kontext/checkpoint-4/{WEIGHTS}"} <= keys
    assert read_metadata(release / WEIGHTS)["modelspec.architecture"] == "flux-1-kontext/lycoris"
    assert read_json(release / "lycoris_config.json")["algo"] == "lokr"
    assert len(list((tmp_path / "kontext/validation_images").glob("step_4_*.png"))) >= 2
    # The release loads onto a base that is not quantised, and does something there.
    pipeline = DiffusionPipeline.from_pretrained(model)
    before = pipeline.transformer.transformer_blocks[0].attn.to_q(torch.ones(1, 128))
    open_adapter(pipeline.transformer, release / WEIGHTS)
    assert not torch.equal(before, pipeline.transformer.transformer_blocks[0].attn.to_q(torch.ones(1, 128)))


def test_the_pixart_run_trains_every_weight_and_is_published_twice(tmp_path: Path, bucket: Any) -> None:
    client, entry = bucket
    (tmp_path / "share").mkdir()
    model = open_family("pixart_sigma").tiny(tmp_path / "model")
    draw_pictures(tmp_path / "data/datasets/pseudo-camera-10k", 8)
    values = options("pixart", tmp_path, PIXART, [PIXART_DATA[0] | SIZES | LIMITS, PIXART_DATA[1]], entry)

    result = train(config=values | {"pretrained_model_name_or_path": str(model)})

    assert isinstance(result, dict)
    assert published(result) == {("checkpoint-2", True), ("checkpoint-4", True), ("release", True)}
    keys = {one["Key"] for one in client.list_objects_v2(Bucket="models")["Contents"]}
    assert "pixart/pipeline/transformer/diffusion_pytorch_model.safetensors" in keys
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "share/pixart/pipeline")

    assert not torch.equal(
        pipeline.transformer.proj_out.weight.float(),
        DiffusionPipeline.from_pretrained(model).transformer.proj_out.weight,
    )
