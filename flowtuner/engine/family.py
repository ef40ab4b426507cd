"""What every model family supplies: the interface that one file in `families/` implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

from flowtuner.errors import ModelError

if TYPE_CHECKING:  # the preflight reads families without paying for torch
    import torch
    from PIL.Image import Image

    from flowtuner.engine.data.sample import Plan
    from flowtuner.engine.diffusion.schedule import NoiseSchedule
    from flowtuner.errors import Fault
    from flowtuner.options import TrainingConfig

Prediction = Literal["epsilon", "v_prediction", "flow_matching"]
Rows = dict[str, "torch.Tensor"]
Drawing = Union["Image", "tuple[Image, ...]"]
"""A picture, or a film as its frames."""


def frames_of(drawing: Drawing) -> tuple[Image, ...]:
    """The frames of a film; a picture is its only one."""
    return drawing if isinstance(drawing, tuple) else (drawing,)


class TextEncoder(ABC):
    """Turns prompts into what the model attends to."""

    @abstractmethod
    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has after truncation; prompts of like length are encoded together."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """One row per prompt: tensors without a batch dimension, trimmed to the prompt's own length."""


class Vae(ABC):
    """Turns pixels into latents, as the model wants them scaled, and back."""

    scale: int
    """Pixels per latent, along an edge."""

    module: Any
    """The diffusers model inside, for the pipeline."""

    sees_time: bool = False
    """Whether its convolutions run over time as well as space."""

    @abstractmethod
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents of a batch of pictures (B, 3, H, W) in [-1, 1]; always the same ones for the same picture."""

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] from a batch of latents."""


class Family(ABC):
    """One model family; `source` is a local folder in diffusers layout or a Hub id, and nothing is loaded yet."""

    name: ClassVar[str]
    flavours: ClassVar[Mapping[str, str]]
    default_flavour: ClassVar[str]
    component: ClassVar[str] = "transformer"
    prediction: ClassVar[Prediction]
    licence: ClassVar[str] = "other"
    """The licence that the base model came with, by the name that the Hub has for it."""

    loads_lora: ClassVar[bool] = True
    """Whether diffusers' pipeline has `load_lora_weights`."""

    pipeline_tag: ClassVar[str] = "text-to-image"
    """What the Hub files models of this family under."""

    lora_targets: tuple[str, ...]
    """Layers that get an adapter, by the ends of their names."""

    max_text_tokens: int
    """Longest prompt: the family's own, unless `tokenizer_max_length` says otherwise."""

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        self.source = source
        self.companions = source
        """Where all parts but the trained one come from; some repositories hold only that one."""
        self.config = config
        if config.tokenizer_max_length:
            self.max_text_tokens = config.tokenizer_max_length

    architecture: str = ""
    """What the model specification for adapter files calls the model; empty: by the family's name."""

    @property
    def source_name(self) -> str:
        """The source without the folders of this machine, fit to be published."""
        return Path(self.source).name if Path(self.source).is_absolute() else str(self.source)

    takes_clip_skip = False
    """Whether `clip_skip` means something to its text encoder."""

    frames_per_latent = 0
    """Frames of a film that share one latent; 0 if it draws pictures only."""

    usual_frames = 1
    """Frames of a film where nothing else is said."""

    frames_per_second = 16
    """How fast its films are shown."""

    takes_references = False
    """Whether it can be trained on pairs: pictures to draw, and pictures to draw them after."""

    control_pipeline = ""
    """The diffusers pipeline that draws with a ControlNet; empty where none can be trained."""

    @abstractmethod
    def load_text_encoder(self, dtype: torch.dtype, device: torch.device) -> TextEncoder:
        """Loads the text encoder and its tokenizer."""

    @abstractmethod
    def load_vae(self, dtype: torch.dtype, device: torch.device) -> Vae:
        """Loads the autoencoder."""

    @abstractmethod
    def load_model(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """Loads the model to train, in evaluation mode and without gradients' extras."""

    @abstractmethod
    def build_model(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """The model to train as its configuration has it, with random weights or, on torch's meta device, none."""

    @abstractmethod
    def build_vae(self, dtype: torch.dtype, device: torch.device) -> Vae:
        """The autoencoder, likewise."""

    @abstractmethod
    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The shapes in the row of a prompt with so many tokens, by name, as this model is made to read them."""

    def add_references(self, text: Rows, references: Sequence[torch.Tensor]) -> Rows:
        """The row of a prompt with the latents (C, H, W) of the pictures that are to be drawn after."""
        raise ModelError(f"the family {self.name} draws from text alone: it cannot be trained on pairs of pictures.")

    @abstractmethod
    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Stacks the rows of a batch, padded to its longest prompt only, with the mask that makes this exact."""

    def describe_picture(self, plan: Plan) -> Rows:
        """What the model is told about a picture besides its caption, as part of its row; most are told nothing."""
        return {}

    def draw_inputs(self, count: int, generator: torch.Generator) -> Rows:
        """What else a micro batch of this size is told, drawn anew each time; most models are told nothing."""
        return {}

    @abstractmethod
    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The model's prediction, shaped as the latents."""

    @abstractmethod
    def noise_schedule(self) -> NoiseSchedule:
        """How noise was mixed into this model's training pictures."""

    @abstractmethod
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
        """Draws one picture or film per text row through diffusers' own pipeline; `seeds` are as many as `texts`."""

    def render(
        self,
        model: torch.nn.Module,
        vae: Vae,
        text: Rows,
        negative_text: Rows,
        *,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        seed: int,
    ) -> Drawing:
        """Draws one picture or film; `text` and `negative_text` are rows of the text encoder."""
        return self.render_batch(
            model,
            vae,
            [text],
            negative_text,
            width=width,
            height=height,
            steps=steps,
            guidance=guidance,
            seeds=[seed],
        )[0]

    @abstractmethod
    def save_pipeline(self, model: torch.nn.Module, target: Path) -> None:
        """Writes a complete diffusers folder: the trained model, all else as it was in the source."""

    @classmethod
    def find_limits(cls, config: TrainingConfig) -> list[Fault]:
        """Says, without torch, which option values this family cannot work with."""
        return []

    @classmethod
    @abstractmethod
    def check_source(cls, path: Path) -> list[str]:
        """Says, without torch, what is wrong with a local model folder; an empty list means it can be loaded."""

    @classmethod
    @abstractmethod
    def tiny(cls, path: Path, *, seed: int = 0, **variant: Any) -> Path:
        """Builds a model of about a million parameters at `path`, offline; the same seed gives the same bytes."""
