"""What is special about PixArt, and what a broken model folder is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.families import choose_source, open_family
from flowtuner.errors import ConfigError, ModelError

CPU = torch.device("cpu")
PixArt = open_family("pixart_sigma")


@pytest.fixture
def broken(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "broken"))


def rows(width=64):
    return [{"prompt_embeds": torch.randn(n, width, generator=torch.Generator().manual_seed(n))} for n in (3, 9)]


def test_the_model_has_about_a_million_parameters(tiny_model, configure):
    model = PixArt(tiny_model, configure()).load_model(torch.float32, CPU)
    assert 0.8e6 < sum(parameter.numel() for parameter in model.parameters()) < 2e6


def test_trimming_is_exact_against_padding_to_300_tokens(tiny_model, configure):
    family = PixArt(tiny_model, configure())
    model = family.load_model(torch.float32, CPU)
    noisy, timesteps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 900])
    trimmed = family.collate_text(rows())
    padded = {
        "prompt_embeds": torch.nn.functional.pad(trimmed["prompt_embeds"], (0, 0, 0, 291)),
        "prompt_attention_mask": torch.nn.functional.pad(trimmed["prompt_attention_mask"], (0, 291)),
    }
    assert trimmed["prompt_embeds"].shape[1] == 9
    with torch.no_grad():
        one, other = (family.predict(model, noisy, timesteps, text) for text in (trimmed, padded))
    assert (one - other).abs().max() < 5e-6


def test_models_with_size_conditions_train_and_render(tmp_path, configure):
    path = PixArt.tiny(tmp_path / "alpha", additional_conditions=True, width=96, layers=1)
    assert PixArt.check_source(path) == []
    family = PixArt(path, configure())
    model = family.load_model(torch.float32, CPU)
    schedule, text = family.noise_schedule(), family.collate_text(rows())
    latents = torch.zeros(2, 4, 8, 16)
    compute_loss(family, model, schedule, latents, text, torch.Generator(), family.config).backward()
    assert model.adaln_single.emb.aspect_ratio_embedder.linear_1.weight.grad.abs().sum() > 0
    one, other = rows()
    image = family.render(
        model, family.load_vae(torch.float32, CPU), one, other, width=32, height=32, steps=2, guidance=2.0, seed=0
    )
    assert image.size == (32, 32)


@pytest.mark.parametrize(("prompt", "pieces"), [("a red circle", 4), ("", 1), ("A  Red CIRCLE ", 4)])
def test_known_words_are_one_token_each(tiny_model, configure, prompt, pieces):
    encoder = PixArt(tiny_model, configure()).load_text_encoder(torch.float32, CPU)
    assert encoder.count_tokens([prompt]) == [pieces]


def test_other_words_are_spelled_and_differ(tiny_model, configure):
    encoder = PixArt(tiny_model, configure()).load_text_encoder(torch.float32, CPU)
    zorp, blip = encoder.encode(["zorp", "blip"])
    assert zorp["prompt_embeds"].shape == blip["prompt_embeds"].shape
    assert not torch.allclose(zorp["prompt_embeds"], blip["prompt_embeds"])


def test_long_prompts_are_cut_at_the_limit(tiny_model, configure):
    long = "word " * 400
    whole = PixArt(tiny_model, configure()).load_text_encoder(torch.float32, CPU)
    short = PixArt(tiny_model, configure(tokenizer_max_length=20)).load_text_encoder(torch.float32, CPU)
    assert whole.count_tokens([long]) == [300]
    assert short.encode([long])[0]["prompt_embeds"].shape == (20, 64)


def test_render_batches_draw_each_seed_alike(tiny_model, configure):
    family = PixArt(tiny_model, configure())
    model, vae = family.load_model(torch.float32, CPU), family.load_vae(torch.float32, CPU)
    one, other = rows()
    size = {"width": 32, "height": 32, "steps": 2, "guidance": 2.0}
    batch = family.render_batch(model, vae, [one, one, other], other, seeds=[1, 2, 1], **size)
    alone = family.render(model, vae, one, other, seed=2, **size)
    pairs = zip(batch[1].tobytes(), alone.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 1


def test_sources(configure):
    assert choose_source(configure()) == "terminusresearch/pixart-900m-1024-ft-v0.6"
    assert choose_source(configure(model_flavour="600M-1024")) == "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
    with pytest.raises(ConfigError, match=r"model_flavour.*900M-1024-v0.6"):
        choose_source(configure(model_flavour="kontext"))
    with pytest.raises(ConfigError, match=r"model_family.*pixart_sigma"):
        open_family("hidream")


def test_a_folder_that_is_no_model(tmp_path):
    assert "is not a folder" in PixArt.check_source(tmp_path / "missing")[0]
    assert "model_index.json is missing" in PixArt.check_source(tmp_path)[0]


def test_a_model_of_another_family(broken):
    (broken / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert "FluxPipeline" in PixArt.check_source(broken)[0]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_an_index_that_is_no_index(broken, content):
    (broken / "model_index.json").write_text(content)
    assert "model_index.json" in PixArt.check_source(broken)[0]


def damage(broken, kind):
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    if kind == "cut short":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "not safetensors":
        weights.write_text("<html>404</html>" * 10)
    elif kind == "empty":
        weights.write_bytes(b"")
    elif kind == "shard missing":
        weights.unlink()
        index = weights.with_name(f"{weights.name}.index.json")
        index.write_text(json.dumps({"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}))
    elif kind == "config missing":
        (broken / "transformer" / "config.json").unlink()
    elif kind == "other class":
        (broken / "transformer" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))


KINDS = ["cut short", "no weights", "not safetensors", "empty", "shard missing", "config missing"]


@pytest.mark.parametrize("kind", [*KINDS, "other class"])
def test_a_damaged_transformer_is_found_without_loading(broken, kind):
    damage(broken, kind)
    faults = PixArt.check_source(broken)
    assert len(faults) == 1
    assert "transformer" in faults[0]


@pytest.mark.parametrize("kind", KINDS)
def test_loading_a_damaged_transformer_is_a_model_error(broken, configure, kind):
    damage(broken, kind)
    with pytest.raises(ModelError, match=r"transformer of .*broken"):
        PixArt(broken, configure()).load_model(torch.float32, CPU)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "vae", "scheduler"])
def test_loading_without_a_part_is_a_model_error(broken, configure, part):
    shutil.rmtree(broken / part)
    family = PixArt(broken, configure())
    load = {
        "tokenizer": lambda: family.load_text_encoder(torch.float32, CPU),
        "text_encoder": lambda: family.load_text_encoder(torch.float32, CPU),
        "vae": lambda: family.load_vae(torch.float32, CPU),
        "scheduler": family.noise_schedule,
    }
    with pytest.raises(ModelError, match=part):
        load[part]()


def test_a_hub_id_without_a_network_says_what_to_check(configure):
    family = PixArt("flowtuner-tests/does-not-exist", configure())
    with pytest.raises(ModelError, match="network"):
        family.load_model(torch.float32, CPU)


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch):
    """A Hub cache on disk; adds a repository that holds some parts of the tiny model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    commit = "c0ffee" + 34 * "0"

    def add(name, *parts):
        repository = tmp_path / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        snapshot = repository / "snapshots" / commit
        shutil.copytree(
            tiny_model, snapshot, ignore=lambda path, names: set(names) - {*parts} if path == str(tiny_model) else ()
        )
        return snapshot

    return add


def test_a_hub_id_loads_from_the_cache_without_a_network(hub, tiny_model, configure, tmp_path):
    hub("somebody/pixart", "model_index.json", "transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    family = PixArt("somebody/pixart", configure())
    model = family.load_model(torch.float32, CPU)
    assert family.load_text_encoder(torch.float32, CPU).count_tokens(["a red circle"]) == [4]
    assert family.load_vae(torch.float32, CPU).scale == 4
    assert family.noise_schedule().prediction == "epsilon"
    family.save_pipeline(model, tmp_path / "saved")
    assert PixArt.check_source(tmp_path / "saved") == []


def test_flavours_that_are_a_transformer_only_find_their_companions(hub, configure, tmp_path):
    hub("PixArt-alpha/PixArt-Sigma-XL-2-512-MS", "transformer")
    hub(
        "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        "model_index.json",
        "vae",
        "text_encoder",
        "tokenizer",
        "scheduler",
    )
    config = configure(model_flavour="600M-512")
    family = PixArt(choose_source(config), config)
    family.load_vae(torch.float32, CPU)
    family.load_text_encoder(torch.float32, CPU)
    family.save_pipeline(family.load_model(torch.float32, CPU), tmp_path / "saved")
    assert PixArt.check_source(tmp_path / "saved") == []


def test_a_source_with_the_older_class_name_and_another_sampler(broken, configure, tmp_path):
    """As the 900M flavours are published."""
    for path, change in {
        "model_index.json": {
            "transformer": ["diffusers", "Transformer2DModel"],
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        },
        "transformer/config.json": {"_class_name": "Transformer2DModel", "only_cross_attention": False},
        "scheduler/scheduler_config.json": {"_class_name": "UniPCMultistepScheduler"},
    }.items():
        value = json.loads((broken / path).read_text())
        (broken / path).write_text(json.dumps(value | change))
    assert PixArt.check_source(broken) == []
    family = PixArt(broken, configure())
    model, one = family.load_model(torch.float32, CPU), rows()[0]
    vae = family.load_vae(torch.float32, CPU)
    family.render(model, vae, one, one, width=32, height=32, steps=2, guidance=2.0, seed=0)
    family.save_pipeline(model, tmp_path / "saved")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler"
    assert torch.equal(pipeline.transformer.proj_out.weight, model.proj_out.weight)
