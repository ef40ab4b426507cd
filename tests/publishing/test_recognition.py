"""What other programs have saved is recognised, and nothing but the model of it leaves the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowtuner.errors import PublishError
from flowtuner.publishing.recognition import recognise
from flowtuner.publishing.snapshot import freeze, model_unit, remove_spool, thaw

TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
TRL_LORA = ["README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", *TOKENIZER]
TRL_FULL = ["config.json", "generation_config.json", "model.safetensors", *TOKENIZER]
STATES = ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
CHECKPOINT = ["checkpoint-5/adapter_model.safetensors", "checkpoint-5/optimizer.pt"]
BESIDE = [*STATES, *CHECKPOINT, ".env", "token", "secrets.json", "notes.txt", "runs/events.out.tfevents.1"]


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(("shape", "files"), [("adapter", TRL_LORA), ("model", TRL_FULL)])
def test_a_folder_of_trl_gives_its_model_only(tmp_path: Path, shape: str, files: list[str]) -> None:
    found = recognise(fill(tmp_path / "out", [*files, *BESIDE]))
    assert found is not None
    assert (found.shape, list(found.files)) == (shape, sorted(files))


def test_a_pipeline_of_diffusers_gives_its_parts_and_no_others(tmp_path: Path) -> None:
    parts = ["transformer/config.json", "transformer/diffusion_pytorch_model.safetensors", "tokenizer/spiece.model"]
    folder = fill(tmp_path / "pipe", [*parts, "transformer/.env", "private/photo.png", *BESIDE])
    index = {"_class_name": "PixArt", "transformer": ["diffusers", "X"], "tokenizer": ["transformers", "Y"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    found = recognise(folder)
    assert found is not None
    assert (found.shape, list(found.files)) == ("pipeline", sorted([*parts, "model_index.json"]))


def test_what_is_no_model_is_none(tmp_path: Path) -> None:
    assert recognise(fill(tmp_path / "out", ["notes.txt", "data.csv", "config.json"])) is None


def test_a_checkpoint_of_another_program_is_a_checkpoint_with_its_step(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out/checkpoint-5", [*TRL_LORA, *STATES])
    lean, whole = model_unit(folder), model_unit(folder, everything=True)
    assert (lean.kind, lean.name, lean.step, lean.run) == ("checkpoint", "checkpoint-5", 5, "out")
    assert list(lean.files) == sorted(TRL_LORA)
    assert {"optimizer.pt", "rng_state.pth"} <= set(whole.files)
    assert "training_args.bin" not in whole.files


@pytest.mark.parametrize(
    "secret", ["hf_" + "a" * 34, "AKIA" + "B" * 16, "sl." + "c" * 80, "-----BEGIN RSA PRIVATE KEY-----"]
)
def test_what_looks_like_a_credential_stops_the_publishing(tmp_path: Path, secret: str) -> None:
    folder = fill(tmp_path / "out", TRL_LORA)
    (folder / "README.md").write_text(f"call it with {secret} and enjoy")
    frozen = freeze(model_unit(folder))
    with pytest.raises(PublishError, match=r"README\.md holds what looks like a credential") as caught:
        frozen.seal()
    assert secret not in str(caught.value) or len(secret) < 40
    thaw(frozen)
    remove_spool(frozen.unit)
    assert not (folder / ".spool").exists()
