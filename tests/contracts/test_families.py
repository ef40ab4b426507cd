"""What every family file promises; a new file is tested the day it is added."""

import json
import sys
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from flowtuner import durable
from flowtuner.engine.adapters import attach
from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.families import open_family, supported
from flowtuner.engine.families.parts.loading import muted_deprecations
from flowtuner.engine.families.parts.packing import unpack
from flowtuner.engine.family import frames_of
from flowtuner.engine.optim import create_optimizer
from flowtuner.engine.precision import resolve_precision
from flowtuner.options import TrainingConfig

CPU = torch.device("cpu")
META = torch.device("meta")
# One around a U-Net, one that predicts noise, one that matches flows; the slow lane tries what is costly with all.
REPRESENTATIVES = ("sd1x", "pixart_sigma", "flux")
costly = pytest.mark.parametrize(
    "source",
    [pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.slow) for name in supported()],
    indirect=True,
    scope="module",
)
PROMPTS = ["a red circle", "", "a large yellow triangle on a black background"]
LONG = "zorp, a large Yellow triangle on " * 90
EDGE = 32
FRAMES = 5
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "config" / "examples"


@dataclass
class Loaded:
    """A tiny model of one family, with everything a training step takes."""

    family: object
    config: TrainingConfig
    rows: list
    text: dict
    pixels: torch.Tensor
    latents: torch.Tensor
    vae: object


@pytest.fixture(scope="module", params=supported())
def source(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, open_family(request.param).tiny(tmp_path_factory.mktemp(request.param) / "model", seed=3)


@pytest.fixture(scope="module")
def loaded(source) -> Loaded:
    torch.set_num_threads(1)
    name, path = source
    config = options(name, path)
    family = open_family(name)(path, config)
    rows = family.load_text_encoder(torch.float32, CPU).encode(PROMPTS)
    vae = family.load_vae(torch.float32, CPU)
    length = (FRAMES,) if family.frames_per_latent else ()
    pixels = torch.rand(len(rows), 3, *length, EDGE, EDGE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Loaded(family, config, rows, family.collate_text(rows), pixels, vae.encode(pixels), vae)


def options(name, path, **values) -> TrainingConfig:
    least = {
        "model_family": name,
        "model_type": "full",
        "output_dir": path.parent,
        "data_backend_config": path.parent / "multidatabackend.json",
        "optimizer": "torch-adamw",
        "learning_rate": 2e-3,
        "lora_rank": 8,
        "gradient_checkpointing": False,
        "validation_num_video_frames": FRAMES,
    }
    return TrainingConfig(**least | values)


def loss_of(model, loaded, config=None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    schedule = loaded.family.noise_schedule()
    return compute_loss(loaded.family, model, schedule, loaded.latents, loaded.text, generator, config or loaded.config)


def test_families_are_opened_without_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from flowtuner.engine.families import open_family, supported\n"
        f"faults = [open_family(name).check_source(Path({str(tmp_path)!r})) for name in supported()]\n"
        "assert all('model_index.json is missing' in fault for (fault,) in faults), faults\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules, 'heavy imports'"
    )
    result = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_whole_model_has_no_faults(source):
    name, path = source
    assert open_family(name).check_source(path) == []


@pytest.mark.parametrize("name", supported())
def test_every_family_has_an_example_and_its_line_in_the_guide(name):
    guide = (ROOT / "docs" / "families.md").read_text()
    (line,) = [line for line in guide.splitlines() if line.startswith(f"| `{name}` ")]
    family = open_family(name)
    assert line.split("|")[2].strip().startswith(f"`{family.default_flavour}`")
    assert all(f"`{flavour}`" in line for flavour in family.flavours)
    assert all(f"`{pipeline}`" in line for pipeline in family.pipelines[:1])
    examples = [json.loads(path.read_text()) for path in EXAMPLES.glob("*/config.json")]
    mine = [example for example in examples if example.get("model_family") in (name, name.replace("_sigma", ""))]
    assert mine
    assert all(
        example.get("model_flavour", open_family(name).default_flavour) in open_family(name).flavours
        for example in mine
    )


@costly
def test_the_same_seed_builds_the_same_bytes(source, tmp_path):
    name, path = source
    again = open_family(name).tiny(tmp_path / "elsewhere", seed=3)
    assert durable.record_files(again) == durable.record_files(path)


@costly
def test_another_seed_builds_another_model(source, tmp_path):
    name, path = source
    family = open_family(name)
    other = family.tiny(tmp_path / "other", seed=4)
    changed = set(durable.record_files(other)) - set(durable.record_files(path))
    assert {family.component, "vae", "text_encoder"} <= {record.path.split("/")[0] for record in changed}


@costly
def test_building_a_tiny_model_draws_nothing_from_the_global_generator(source, tmp_path):
    before = torch.get_rng_state()
    open_family(source[0]).tiny(tmp_path / "model")
    assert torch.equal(before, torch.get_rng_state())


def test_text_rows_have_their_own_length(loaded):
    encoder = loaded.family.load_text_encoder(torch.float32, CPU)
    counts = encoder.count_tokens(PROMPTS)
    assert counts[1] < counts[0] < counts[2] <= loaded.family.max_text_tokens
    assert all(isinstance(tensor, torch.Tensor) for row in loaded.rows for tensor in row.values())
    alone = encoder.encode(PROMPTS[:1])[0]
    for name, tensor in loaded.rows[0].items():
        assert tensor.shape == alone[name].shape
        torch.testing.assert_close(tensor, alone[name], atol=1e-5, rtol=1e-5)


def test_a_model_and_its_text_are_known_before_anything_is_loaded(loaded):
    """What a run needs is counted with a model without weights and rows that no encoder made."""
    there, built = loaded.family.load_model(torch.float32, CPU), loaded.family.build_model(torch.float32, META)
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in there.state_dict().items()}
    assert all(tensor.device == META for tensor in built.parameters())
    for prompt, row in zip(PROMPTS, loaded.rows, strict=True):
        tokens = len(row["prompt_embeds"])
        said = loaded.family.text_shapes(built, tokens)
        assert said == {name: tuple(tensor.shape) for name, tensor in row.items()}, prompt
    assert loaded.family.build_vae(torch.bfloat16, CPU).encode(loaded.pixels[:1]).shape == loaded.latents[:1].shape


def test_padding_to_the_longest_prompt_of_the_batch_changes_nothing(loaded):
    """Trimmed equals padded: the short prompt gives the same answer alone and beside a long one."""
    model = loaded.family.load_model(torch.float32, CPU)
    timesteps = torch.tensor([500])
    short = loaded.family.collate_text(loaded.rows[:1])
    padded = {name: tensor[:1] for name, tensor in loaded.family.collate_text(loaded.rows).items()}
    with torch.no_grad():
        one = loaded.family.predict(model, loaded.latents[:1], timesteps, short)
        other = loaded.family.predict(model, loaded.latents[:1], timesteps, padded)
        asked = loaded.family.predict(model, loaded.latents[:1], timesteps, loaded.family.collate_text(loaded.rows[2:]))
    assert one.shape == loaded.latents[:1].shape
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(one, asked, atol=1e-3)  # or else what is padded could not matter


def test_latents_have_the_vaes_scale_and_decode_to_pixels(loaded):
    edge = EDGE // loaded.vae.scale
    assert loaded.latents.shape[0] == len(PROMPTS)
    assert loaded.latents.shape[-2:] == (edge, edge)
    assert loaded.vae.decode(loaded.latents).shape == loaded.pixels.shape


def test_training_learns_saves_and_comes_back(source, loaded, tmp_path):
    check_learning(source, loaded, tmp_path, "full", steps=8)


@costly
def test_an_adapter_learns_is_saved_and_comes_back(source, loaded, tmp_path):
    check_learning(source, loaded, tmp_path, "lora", steps=12)


def check_learning(source, loaded, tmp_path, model_type, steps):
    config = options(*source, model_type=model_type, lora_dropout=0.0)
    precision = resolve_precision(config, CPU)
    model = loaded.family.load_model(precision.base, CPU)
    part = attach(model, config, loaded.family, precision)
    optimizer = create_optimizer(config, part.parameters(), CPU)
    before = loss_of(model, loaded).item()
    for _ in range(steps):
        loss_of(model, loaded).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = loss_of(model, loaded).item()
    assert after < 0.95 * before

    part.save(tmp_path)
    fresh = loaded.family.load_model(precision.base, CPU)
    read = attach(fresh, config, loaded.family, precision)
    read.load(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(part.state().values(), read.state().values(), strict=True))
    assert loss_of(fresh, loaded).item() == after


def test_one_step_of_the_pipeline_is_what_the_model_predicts(source, loaded):
    """Timesteps, sign, packing and text: from noise, the pipeline goes one step of its sampler where we go."""
    name, path = source
    family = open_family(name)(path, options(name, path, flux_guidance_value=0.0))
    if family.prediction != "flow_matching":
        return  # those steps are the sampler's own; the pictures are compared below
    model = family.load_model(torch.float32, CPU)
    text = family.collate_text(loaded.rows[:1])
    pipeline = family.open_pipeline(model, loaded.vae, loaded.rows[:1])
    pipeline.set_progress_bar_config(disable=True)
    shape = loaded.latents[:1].shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    arguments = family.prompt_arguments(loaded.rows[:1], loaded.rows[1]) | family.drawing_arguments(EDGE, EDGE, 0.0)
    seen = []

    def keep(pipeline, step, timestep, tensors):
        seen.append(tensors["latents"])
        return tensors

    generator = [torch.Generator().manual_seed(4)]
    with muted_deprecations():
        pipeline(**arguments, num_inference_steps=2, generator=generator, callback_on_step_end=keep)
    after = unpack(seen[0], *shape[-2:]) if seen[0].ndim == 3 else seen[0]
    sigmas, timestep = pipeline.scheduler.sigmas, pipeline.scheduler.timesteps[:1].float()
    with torch.no_grad():
        direction = family.predict(model, noise, timestep, text)
    torch.testing.assert_close(after, noise + (sigmas[1] - sigmas[0]) * direction, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", ["a Red circle", pytest.param(LONG, marks=pytest.mark.slow)], ids=["short", "long"])
def test_a_picture_is_the_one_that_diffusers_draws_of_the_prompt(loaded, prompt):
    family = loaded.family
    wanted, refused = family.load_text_encoder(torch.float32, CPU).encode([prompt, ""])
    model = family.load_model(torch.float32, CPU)
    size = {"width": EDGE, "height": EDGE, "guidance": 3.0}
    ours = family.render(model, loaded.vae, wanted, refused, steps=2, seed=5, **size)
    pipeline = DiffusionPipeline.from_pretrained(family.source)
    pipeline.set_progress_bar_config(disable=True)
    arguments = family.drawing_arguments(EDGE, EDGE, 3.0) | {"prompt": prompt, "negative_prompt": ""}
    if "max_sequence_length" in signature(pipeline.__call__).parameters:
        arguments["max_sequence_length"] = family.max_text_tokens
    with muted_deprecations():
        answer = pipeline(**arguments, num_inference_steps=2, generator=torch.Generator().manual_seed(5))
    (theirs,) = family.read_drawings(answer)
    for one, other in zip(frames_of(ours), frames_of(theirs), strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1


@costly
def test_a_lora_is_loaded_by_the_pipeline_if_it_has_a_loader(source, loaded, tmp_path):
    family = loaded.family
    pipeline = DiffusionPipeline.from_pretrained(family.source)
    assert hasattr(pipeline, "load_lora_weights") == family.loads_lora
    if not family.loads_lora:
        return  # docs/adapters.md shows the one line that loads it
    config = options(*source, model_type="lora", lora_alpha=4, lora_dropout=0.0)
    model = family.load_model(torch.float32, CPU)
    part = attach(model, config, family, resolve_precision(config, CPU))
    with torch.no_grad():
        for number, parameter in enumerate(part.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    part.save(tmp_path)
    trained = getattr(pipeline, family.component)
    steps = torch.tensor([500] * len(loaded.rows))
    with torch.no_grad():
        before = family.predict(trained, loaded.latents, steps, loaded.text)
        pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
        after = family.predict(trained, loaded.latents, steps, loaded.text)
        wanted = family.predict(model, loaded.latents, steps, loaded.text)
    torch.testing.assert_close(after, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, after, atol=1e-3)


@costly
def test_pictures_are_rendered_and_repeat(loaded):
    model = loaded.family.load_model(torch.float32, CPU)
    size = {"width": EDGE, "height": 2 * EDGE, "steps": 2, "guidance": 3.0}
    one = loaded.family.render(model, loaded.vae, loaded.rows[0], loaded.rows[1], seed=5, **size)
    again = loaded.family.render(model, loaded.vae, loaded.rows[0], loaded.rows[1], seed=5, **size)
    other = loaded.family.render(model, loaded.vae, loaded.rows[0], loaded.rows[1], seed=6, **size)
    assert {frame.size for frame in frames_of(one)} == {(EDGE, 2 * EDGE)}
    assert len(frames_of(one)) == (FRAMES if loaded.family.frames_per_latent else 1)
    one, again, other = ([frame.tobytes() for frame in frames_of(drawing)] for drawing in (one, again, other))
    assert one == again != other


@costly
def test_the_saved_pipeline_loads_with_diffusers(loaded, tmp_path):
    model = loaded.family.load_model(torch.float32, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    loaded.family.save_pipeline(model, tmp_path / "pipeline")
    assert type(loaded.family).check_source(tmp_path / "pipeline") == []
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    saved = getattr(pipeline, loaded.family.component)
    for (name, one), (_, other) in zip(model.named_parameters(), saved.named_parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("part", ["component", "text_encoder", "vae", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(source, tmp_path, part):
    name, path = source
    family = open_family(name)
    wanted = family.component if part == "component" else part
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "model_index.json").write_bytes((path / "model_index.json").read_bytes())
    for folder in path.iterdir():
        if folder.is_dir() and folder.name != wanted:
            (broken / folder.name).symlink_to(folder)
    faults = family.check_source(broken)
    assert len(faults) == 1
    assert wanted in faults[0]
