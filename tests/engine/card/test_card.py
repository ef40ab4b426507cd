"""The papers of a release: what the card says, what the Hub reads of it, and what must never stand in it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from flowtuner.engine.card import CardFacts, write_papers
from flowtuner.engine.families import open_family
from flowtuner.options import load
from tests.conftest import tiny_options

CANARY = "canary-0123456789"
PROMPT = 'a "red": circle | with a \\ and \u00fcmlaut'


@pytest.fixture
def options(tmp_path: Path, pictures: Path) -> dict[str, Any]:
    model = tmp_path / "models" / "tiny"
    model.mkdir(parents=True)
    return tiny_options(
        tmp_path,
        model,
        pictures,
        validation_disable=False,
        validation_prompt=PROMPT,
        validation_negative_prompt="blurry",
        validation_resolution="32",
        model_type="lora",
        hub_model_id="alice/fox-lora",
    )


def write(tmp_path: Path, options: dict[str, Any], *, shots: bool = True) -> tuple[str, dict[str, Any]]:
    output_dir = Path(options["output_dir"])
    folder = output_dir / "validation_images"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("step_4_validation", "step_6_validation", "step_6_unconditional") if shots else ():
        (folder / f"{name}_32x32_0.png").write_bytes(name.encode())
    (folder / "step_6_sheet.png").write_bytes(b"sheet")
    loaded = load(values=options, environ={})
    write_papers(output_dir, CardFacts(loaded, open_family(loaded.config.model_family), 6, {"pictures": 16}))
    card = (output_dir / "README.md").read_text()
    return card, yaml.safe_load(card.split("---")[1])


def test_the_hub_reads_the_metadata(tmp_path: Path, options: dict[str, Any]) -> None:
    card, data = write(tmp_path, options)
    assert data["license"] == "openrail++"
    assert data["pipeline_tag"] == "text-to-image"
    assert {"pixart_sigma", "text-to-image", "diffusers", "flowtuner", "fine-tuned", "lora"} <= set(data["tags"])
    assert [entry["text"] for entry in data["widget"]] == ["unconditional (blank prompt)", PROMPT]
    assert data["widget"][1]["output"]["url"] == "./assets/image_1.png"
    assert data["widget"][1]["parameters"]["negative_prompt"] == "blurry"
    assert (Path(options["output_dir"]) / "assets" / "image_1.png").read_bytes() == b"step_6_validation"
    assert ModelCard(card).data.pipeline_tag == "text-to-image"
    for words in ("# fox-lora", "16 | 0 | 32 pixels", "| Learning rate | 0.001 |", "| Rank |", "torch-adamw"):
        assert words in card


@pytest.mark.parametrize(("is_safe", "is_tagged"), [(False, True), (True, False)])
def test_who_did_not_say_that_it_is_safe_gets_the_tag(
    tmp_path: Path, options: dict[str, Any], is_safe: bool, is_tagged: bool
) -> None:
    _, data = write(tmp_path, options | {"model_card_safe_for_work": is_safe})
    assert ("not-for-all-audiences" in data["tags"]) is is_tagged


def test_a_note_and_the_base_model_are_told(tmp_path: Path, options: dict[str, Any]) -> None:
    base = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
    values = options | {"model_card_note": "Ask Ada.", "pretrained_model_name_or_path": base}
    card, data = write(tmp_path, values)
    assert (data["base_model"], data["base_model_relation"]) == (base, "adapter")
    assert "Ask Ada." in card


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "full"}, ["from_pretrained('alice/fox-lora'"]),
        ({}, ["inject_adapter_in_model", "hf_hub_download('alice/fox-lora'"]),
        ({"model_family": "sdxl"}, ["load_lora_weights('alice/fox-lora'"]),
        ({"hub_model_id": None}, ["'owner/name'"]),
    ],
)
def test_the_code_is_python(tmp_path: Path, options: dict[str, Any], values: dict[str, Any], words: list[str]) -> None:
    card, _ = write(tmp_path, options | values, shots=False)
    code = card.split("```python\n")[1].split("```")[0]
    ast.parse(code)
    assert repr(PROMPT) in code
    for word in words:
        assert word in code


def test_no_secret_and_no_local_path_is_told(tmp_path: Path, options: dict[str, Any]) -> None:
    values = options | {
        "hub_token": CANARY,
        "publishing_config": [{"provider": "s3", "bucket": "b", "access_key": CANARY, "secret_key": CANARY}],
        "webhook_config": [{"webhook_type": "raw", "callback_url": f"https://x/{CANARY}"}],
        "post_upload_script": f"/home/me/run.sh {CANARY}",
        "tracker_run_name": f"https://user:{CANARY}@example.org/x",
        "model_card_note": "a note",
    }
    write(tmp_path, values)
    output_dir = Path(options["output_dir"])
    for name in ("README.md", "simpletuner_config.json"):
        text = (output_dir / name).read_text()
        assert CANARY not in text
        assert str(tmp_path) not in text
    shown = json.loads((output_dir / "simpletuner_config.json").read_text())
    assert shown["tracker_run_name"] == "https://example.org/x"
    assert shown["output_dir"] == "output"
    assert not {"publishing_config", "hub_token", "webhook_config"} & set(shown)


def test_the_same_run_writes_the_same_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    first, _ = write(tmp_path, options)
    again, _ = write(tmp_path, options)
    assert first == again


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated")  # older versions of diffusers know no other name
def test_films_are_shown_and_drawn_as_films(tmp_path: Path, pictures: Path) -> None:
    model = open_family("wan").tiny(tmp_path / "models" / "wan")
    options = tiny_options(
        tmp_path, model, pictures, model_family="wan", validation_prompt=PROMPT, validation_disable=False
    )
    folder = Path(options["output_dir"]) / "validation_images"
    folder.mkdir(parents=True)
    (folder / "step_6_validation_32x32_0.gif").write_bytes(b"GIF89a")
    card, data = write(tmp_path, options | {"validation_num_inference_steps": 1}, shots=False)
    assert data["widget"][0]["output"]["url"].endswith(".gif")
    code = card.split("```python\n")[1].split("```")[0]
    place = code.split("from_pretrained(")[1].split(",")[0]
    small = code.replace(place, repr(str(model))).replace("    num_frames=", "    height=32, width=32, num_frames=")
    small = small.replace('"film.gif"', repr(str(tmp_path / "film.gif"))).replace("bfloat16", "float32")
    exec(small, {})
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF")
