"""A family around one diffusers pipeline: a table says what its folder holds; loading, drawing and saving follow."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.durable import atomic_folder
from flowtuner.engine.families.parts import source as sources
from flowtuner.engine.family import Drawing, Family, Rows, TextEncoder, Vae
from flowtuner.errors import Fault

if TYPE_CHECKING:
    import torch

    from flowtuner.engine.diffusion import NoiseSchedule
    from flowtuner.options import TrainingConfig


@dataclass(frozen=True)
class Part:
    """One subfolder of a pipeline: the class it is loaded as, and where that class lives."""

    loads: str
    library: str = "diffusers"
    also: tuple[str, ...] = ()
    """Other classes that its configuration may name."""

    is_optional: bool = False
    """Whether the pipeline's index may leave it out."""


@dataclass(frozen=True)
class TextPart(Part):
    """A text encoder or a tokenizer."""

    library: str = "transformers"


SCHEDULER = Part("")
"""Loaded as whatever class its own configuration names."""


class PipelineFamily(Family):
    """What is left to a family: its table, its text encoder, its model's arguments, and a tiny one of its kind."""

    pipelines: ClassVar[tuple[str, ...]]
    """The pipelines that a folder may name; the first one draws."""

    parts: ClassVar[Mapping[str, Part]]
    """The subfolders of a source; all but optional ones have to be there."""

    pixels_per_latent: ClassVar[int] = 8
    """Along an edge, unless the source's own autoencoder is seen to be another."""

    latents_per_token: ClassVar[int] = 1
    """Along an edge of what the model attends to."""

    pipeline_options: ClassVar[Mapping[str, Any]] = {}
    """What the pipeline is made with besides its parts."""

    def load_text_encoder(self, dtype: torch.dtype, device: torch.device) -> TextEncoder:
        """Loads the text encoders and tokenizers, in the order of the table."""
        from flowtuner.engine.families.parts.loading import load_part

        names = [name for name, part in self.parts.items() if isinstance(part, TextPart)]
        return self.join_text_parts({name: load_part(self, name, dtype, device) for name in names})

    @abstractmethod
    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """One text encoder of what the source holds for text; an optional part that is not there is None."""

    def load_vae(self, dtype: torch.dtype, device: torch.device) -> Vae:
        """Loads the autoencoder, with the memory savers that the options ask for."""
        from flowtuner.engine.families.parts.loading import load_part

        return self._dress_vae(load_part(self, "vae", dtype, device))

    def build_vae(self, dtype: torch.dtype, device: torch.device) -> Vae:
        """An autoencoder of the source's kind and size."""
        from flowtuner.engine.families.parts.loading import build_part

        return self._dress_vae(build_part(self, "vae", dtype, device))

    def _dress_vae(self, module: Any) -> Vae:
        if self.config.vae_enable_tiling:
            module.enable_tiling()
        if self.config.vae_enable_slicing:
            module.enable_slicing()
        return self.wrap_vae(module)

    def wrap_vae(self, module: Any) -> Vae:
        """The autoencoder with the scaling that the model expects of latents."""
        from flowtuner.engine.families.parts.autoencoders import KlVae

        return KlVae(module)

    def load_model(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """Loads the part that is trained."""
        from flowtuner.engine.families.parts.loading import load_part

        return self.complete_model(load_part(self, self.component, dtype, device))

    def build_model(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """A model of the source's kind and size."""
        from flowtuner.engine.families.parts.loading import build_part

        with device:
            return self.complete_model(build_part(self, self.component, dtype, device))

    def complete_model(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model with what stands beside it while it is trained."""
        return model

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Stacks rows of one length: for a model that attends to the padding too, it belongs to the prompt."""
        import torch

        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def noise_schedule(self) -> NoiseSchedule:
        """Flow matching, shifted and drawn as the options say."""
        from flowtuner.engine.diffusion import FlowSchedule

        return FlowSchedule.from_config(self.config)

    def render_batch(
        self,
        model: torch.nn.Module,
        vae: Vae,
        texts: Sequence[Rows],
        negative: Rows,
        *,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        seeds: Sequence[int],
    ) -> list[Drawing]:
        """Draws through the pipeline."""
        import torch

        from flowtuner.engine.families.parts.loading import muted_deprecations

        pipeline = self.open_pipeline(model, vae, texts)
        pipeline.set_progress_bar_config(disable=True)
        like = next(model.parameters())
        prompts = {name: _move(value, like) for name, value in self.prompt_arguments(texts, negative).items()}
        with muted_deprecations():
            answer = pipeline(
                **prompts,
                **self.drawing_arguments(width, height, guidance),
                num_inference_steps=steps,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU: the same on any device
            )
        return self.read_drawings(answer)

    def open_pipeline(self, model: torch.nn.Module, vae: Vae, texts: Sequence[Rows]) -> Any:
        """The pipeline around the model, without text encoders."""
        from flowtuner.engine.families.parts.loading import load_scheduler

        parts = dict.fromkeys(self.parts) | {self.component: model, "vae": vae.module}
        return self.choose_pipeline(model, texts)(
            **parts | {"scheduler": load_scheduler(self)}, **self.pipeline_options
        )

    def choose_pipeline(self, model: Any, texts: Sequence[Rows]) -> Any:
        """The class that draws."""
        import diffusers

        return getattr(diffusers, self.pipelines[0])

    def prompt_arguments(self, texts: Sequence[Rows], negative: Rows) -> dict[str, Any]:
        """The pipeline's arguments about text; both kinds are of one length, since guidance runs them as one batch."""
        count = len(texts)
        both = self.collate_text([*texts, *[negative] * count])
        wanted = {name: tensor[:count] for name, tensor in both.items()}
        return wanted | {f"negative_{name}": tensor[count:] for name, tensor in both.items()}

    def read_drawings(self, answer: Any) -> list[Drawing]:
        """What the pipeline drew."""
        drawn: list[Drawing] = answer.images
        return drawn

    def drawing_arguments(self, width: int, height: int, guidance: float) -> dict[str, Any]:
        """The pipeline's arguments about the picture."""
        return {"width": width, "height": height, "guidance_scale": guidance}

    def save_pipeline(self, model: torch.nn.Module, target: Path) -> None:
        """Writes the trained part beside copies of the source's others."""
        from flowtuner.engine.families.parts.loading import copy_other_parts, find_replaced, locate_folder
        from flowtuner.engine.families.parts.weights import save_model

        copy_other_parts(locate_folder(self), target, self.component, model, find_replaced(self))
        save_model(model, target / self.component)

    @classmethod
    def find_limits(cls, config: TrainingConfig) -> list[Fault]:
        """Sizes that cannot be cut into latents and tokens."""
        given = [config.pretrained_vae_model_name_or_path, config.pretrained_model_name_or_path]
        folders = [Path(source).expanduser() / inside for source in given if source for inside in ("vae", "")]
        scale = next((found for folder in folders if (found := sources.find_vae_scale(folder))), None)
        token = cls.latents_per_token * (scale or cls.pixels_per_latent)
        alignment = config.aspect_bucket_alignment
        if alignment % token == 0:
            return []
        problem = f"the model sees pictures in squares of {token} pixels"
        return [Fault("aspect_bucket_alignment", alignment, "", problem, f"multiples of {token}")]

    @classmethod
    def check_source(cls, path: Path) -> list[str]:
        """Says what is wrong with a local folder."""
        # What a transformers configuration calls its class differs between versions: only diffusers' own are compared.
        classes = {
            name: () if isinstance(part, TextPart) or not part.loads else (part.loads, *part.also)
            for name, part in cls.parts.items()
        }
        optional = {name for name, part in cls.parts.items() if part.is_optional}
        return sources.find_faults(path, cls.pipelines, classes, optional)

    @classmethod
    def tiny(cls, path: Path, *, seed: int = 0, **variant: Any) -> Path:
        """Builds a tiny model at `path`, offline; the same seed gives the same bytes."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pipeline = cls.build_tiny(variant)
        with atomic_folder(Path(path)) as part:
            pipeline.save_pretrained(part)
        return Path(path)

    @classmethod
    @abstractmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A whole pipeline of about a million random parameters; `variant` overrides what a test is about."""


def _move(value: Any, like: torch.Tensor) -> Any:
    import torch

    if isinstance(value, list):
        return [_move(one, like) for one in value]
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)
