"""Small random text encoders and autoencoders: the same classes as the real ones, built offline in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WORDS = (
    *("a", "an", "and", "at", "black", "blue", "bright", "circle", "cross", "cyan", "dark", "drawing", "green", "grey"),
    *("in", "large", "magenta", "of", "on", "orange", "over", "photo", "picture", "purple", "red", "scene", "shape"),
    *("small", "square", "the", "triangle", "white", "with", "yellow", "background"),
)
# Single characters spell every other word, so that nothing a user writes collapses to <unk>.
CHARACTERS = "\u2581abcdefghijklmnopqrstuvwxyz0123456789.,'-"


def build_t5_tokenizer(words: Sequence[str] = ()) -> Any:
    """A T5 tokenizer with whole words and single characters; a trained one collapses to characters when tiny."""
    from transformers import T5Tokenizer

    known = sorted({*WORDS, *words})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("\u2581" + word, -2.0) for word in known]
    pieces += [(character, -8.0) for character in CHARACTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def build_t5(vocabulary: int, width: int) -> Any:
    """A T5 encoder of two layers."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=max(vocabulary, 128),
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config).eval()


def build_vae(channels: Sequence[int], latent_channels: int, **extra: Any) -> Any:
    """An AutoencoderKL with one down-scaling by two between each pair of `channels`."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=tuple(channels),
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        latent_channels=latent_channels,
        norm_num_groups=16,
        layers_per_block=1,
        **extra,
    ).eval()
