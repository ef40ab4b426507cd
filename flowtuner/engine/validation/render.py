"""Draws the validation pictures; nothing in here can change or end the training."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flowtuner.engine.family import frames_of
from flowtuner.engine.run import ValidationReport
from flowtuner.engine.validation.prompts import ValidationPrompt, validation_prompts
from flowtuner.engine.validation.sheet import Tile, save_sheet
from flowtuner.engine.validation.sizes import parse_resolutions
from flowtuner.errors import FlowtunerError

if TYPE_CHECKING:  # prompts and sizes are wanted where torch is not
    import torch

    from flowtuner.engine.family import Drawing, Family, Rows, Vae
    from flowtuner.options import TrainingConfig

FOLDER = "validation_images"
REFERENCES = "reference_"
"""How the names of the tensors start that `add_references` puts into a row."""
PIXELS_AT_ONCE = 1 << 20
"""How much is drawn in one go: one picture of a megapixel, or many small ones."""


class DrawingStoppedError(FlowtunerError):
    """The run was stopped in the middle of a picture."""


@dataclass(frozen=True)
class Shot:
    """One picture to draw."""

    prompt: ValidationPrompt
    size: tuple[int, int]
    number: int
    seed: int
    place: int
    """Of the prompt among the prompts: it decides which pictures it is drawn after, where a model needs some."""

    def file_name(self, step: int, suffix: str) -> str:
        """The name under which the picture is kept."""
        return f"step_{step}_{short_name(self.prompt)}_{self.size[0]}x{self.size[1]}_{self.number}{suffix}"


def file_pattern(step: int, prompt: ValidationPrompt) -> str:
    """A pattern of the names of the pictures and films that were drawn of a prompt."""
    return rf"step_{step}_{re.escape(short_name(prompt))}_\d+x\d+_\d+\.(png|gif)"


def short_name(prompt: ValidationPrompt) -> str:
    """A prompt's name as it stands in file names."""
    return re.sub(r"[^\w.-]+", "_", prompt.shortname)


def run_validation(
    family: Family,
    model: torch.nn.Module,
    vae_loader: Callable[[], Vae],
    embeds: Callable[[str], Rows],
    config: TrainingConfig,
    step: int,
    output_dir: Path,
    *,
    references: Callable[[int], Sequence[torch.Tensor]] = lambda place: (),
    ema_weights: contextlib.AbstractContextManager[None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> ValidationReport:
    """Draws every prompt at every size; a failure becomes the report's `error`, with the pictures made so far."""
    images: list[Path] = []
    videos: list[Path] = []
    tiles: list[Tile] = []
    sheet, error = None, None
    folder = output_dir / FOLDER
    shots: list[Shot] = []
    try:
        shots = list(_plan(config, step))
        folder.mkdir(parents=True, exist_ok=True)
        with _undisturbed(model, config, ema_weights), _interruptible(model, is_stopped):
            read = partial(_read_row, family, embeds, references)
            for shot, drawing in _draw(family, model, vae_loader, read, embeds, config, shots, is_stopped):
                kept, suffix = (videos, ".gif") if isinstance(drawing, tuple) else (images, ".png")
                path = folder / shot.file_name(step, suffix)
                _save(drawing, path, family.frames_per_second)
                kept.append(path)
                tiles.append(Tile(frames_of(drawing)[-1], f"{shot.prompt.shortname}: {shot.prompt.prompt}"))
        if tiles:
            sheet = folder / f"step_{step}_sheet.png"
            save_sheet(tiles, f"step {step}", sheet)
    except (FlowtunerError, RuntimeError, OSError, ValueError, MemoryError) as problem:
        # An out-of-memory error of torch is a RuntimeError.
        if not isinstance(problem, DrawingStoppedError):
            error = f"{type(problem).__name__}: {problem}"
    done = len(images) + len(videos)
    if error is None and done < len(shots):
        error = f"stopped on request after {done} of {len(shots)} pictures"
    prompts = tuple(dict.fromkeys(shot.prompt.prompt for shot in shots))
    return ValidationReport(step, tuple(images), tuple(videos), sheet, prompts, error)


def _plan(config: TrainingConfig, step: int) -> Iterator[Shot]:
    prompts = validation_prompts(config)
    if not prompts:
        return
    sizes = parse_resolutions(config.validation_resolution, config.aspect_bucket_alignment)
    seed = _choose_seed(config, step)
    for size in sizes:
        for place, prompt in enumerate(prompts):
            for number in range(config.num_validation_images or 1):
                yield Shot(prompt, size, number, seed + number, place)


def _choose_seed(config: TrainingConfig, step: int) -> int:
    """The validation's own seed, else the run's, else 0; a seed of 0 is a seed."""
    given = [seed for seed in (config.validation_seed, config.seed) if seed is not None and seed >= 0]
    seed = given[0] if given else 0
    # Another one each time, but the same again when a resumed run comes back to this step.
    return zlib.crc32(f"{seed} {step}".encode()) if config.validation_randomize else seed


def _draw(
    family: Family,
    model: torch.nn.Module,
    vae_loader: Callable[[], Vae],
    read: Callable[[Shot], Rows],
    embeds: Callable[[str], Rows],
    config: TrainingConfig,
    shots: list[Shot],
    is_stopped: Callable[[], bool],
) -> Iterator[tuple[Shot, Drawing]]:
    if not shots:
        return
    vae = vae_loader()
    negative = embeds(config.validation_negative_prompt or "")
    frames = config.validation_num_video_frames or family.usual_frames if family.frames_per_latent else 1
    for batch, texts in _batches(shots, read, frames):
        if is_stopped():
            return
        width, height = batch[0].size
        pictures = family.render_batch(
            model,
            vae,
            texts,
            negative,
            width=width,
            height=height,
            steps=config.validation_num_inference_steps,
            guidance=config.validation_guidance,
            seeds=[shot.seed for shot in batch],
        )
        yield from zip(batch, pictures, strict=True)


def _save(drawing: Drawing, path: Path, frames_per_second: int) -> None:
    first, *others = frames_of(drawing)
    if not isinstance(drawing, tuple):
        first.save(path)
        return
    first.save(path, save_all=True, append_images=others, duration=round(1000 / frames_per_second), loop=0)


def _batches(shots: list[Shot], read: Callable[[Shot], Rows], frames: int) -> Iterator[tuple[list[Shot], list[Rows]]]:
    batch: list[Shot] = []
    texts: list[Rows] = []
    for shot in shots:
        text = read(shot)
        is_full = len(batch) >= max(PIXELS_AT_ONCE // (shot.size[0] * shot.size[1] * frames), 1)
        if batch and (is_full or shot.size != batch[0].size or _is_after_others(text, texts[0])):
            yield batch, texts
            batch, texts = [], []
        batch.append(shot)
        texts.append(text)
    yield batch, texts


def _read_row(
    family: Family,
    embeds: Callable[[str], Rows],
    references: Callable[[int], Sequence[torch.Tensor]],
    shot: Shot,
) -> Rows:
    text, latents = embeds(shot.prompt.prompt), references(shot.place)
    return family.add_references(text, latents) if latents else text


def _is_after_others(text: Rows, first: Rows) -> bool:
    # References of other sizes cannot share a batch; the text's own tensors may differ in length.
    return any(text[name].shape != first[name].shape for name in text if name.startswith(REFERENCES))


@contextlib.contextmanager
def _interruptible(model: torch.nn.Module, is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Ends a picture within one denoising step of a stop: whoever cancels a run waits for its engine."""

    def check(*unused: object) -> None:
        if is_stopped():
            raise DrawingStoppedError("stopped on request")

    # A pipeline calls what is inside of a model that only joins others.
    hook = getattr(model, "base", model).register_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _undisturbed(
    model: torch.nn.Module, config: TrainingConfig, ema_weights: contextlib.AbstractContextManager[None] | None
) -> Iterator[None]:
    """Evaluation mode and EMA weights inside; outside, the model, its mode and every random generator as before."""
    import torch

    from flowtuner.engine.compilation import uncompiled
    from flowtuner.engine.precision import resolve_precision
    from flowtuner.engine.seed import isolated_randomness

    device = next(model.parameters()).device
    compute = resolve_precision(config, device).autocast
    was_training = model.training
    with contextlib.ExitStack() as stack:
        stack.callback(model.train, was_training)
        model.eval()
        stack.enter_context(isolated_randomness())
        stack.enter_context(ema_weights or contextlib.nullcontext())
        stack.enter_context(torch.no_grad())
        stack.enter_context(uncompiled(config))
        if compute is not None:
            stack.enter_context(torch.autocast(device.type, dtype=compute))
        yield
    if device.type == "cuda":
        torch.cuda.empty_cache()  # so that a step that just fitted still fits
