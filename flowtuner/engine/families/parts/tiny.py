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
NO_QUANT_CONVS = {"use_quant_conv": False, "use_post_quant_conv": False}
GATES = 4.0
CHARACTERS = "\u2581abcdefghijklmnopqrstuvwxyz0123456789.,'-"


def build_t5_tokenizer(words: Sequence[str] = (), max_tokens: int = 512) -> Any:
    """A T5 tokenizer with whole words and single characters; a trained one collapses to characters when tiny."""
    from transformers import T5Tokenizer

    known = sorted({*WORDS, *words})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("\u2581" + word, -2.0) for word in known]
    pieces += [(character, -8.0) for character in CHARACTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=max_tokens)


def build_t5(vocabulary: int, width: int) -> Any:
    """A T5 encoder of two layers."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(**_shape_t5(vocabulary, width))).eval()


def build_umt5(vocabulary: int, width: int) -> Any:
    """A UMT5 encoder of two layers."""
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(**_shape_t5(vocabulary, width))).eval()


def _shape_t5(vocabulary: int, width: int) -> dict[str, Any]:
    return {
        "vocab_size": max(vocabulary, 128),
        "d_model": width,
        "d_kv": 16,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "use_cache": False,
    }


def build_clip_tokenizer(words: Sequence[str] = ()) -> Any:
    """A CLIP tokenizer whose merges spell the known words from the left; other words stay single characters."""
    from transformers import CLIPTokenizer

    letters = CHARACTERS[1:]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in sorted({*WORDS, *words}):
        left = word[0]
        for place, letter in enumerate(word[1:], start=2):
            right = letter if place < len(word) else f"{letter}</w>"
            merges.append((left, right))
            left += right
            pieces.append(left)
    vocabulary = dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)},
        merges=list(dict.fromkeys(merges)),
        model_max_length=77,
    )


def build_clip(tokenizer: Any, width: int, *, is_projected: bool = False) -> Any:
    """A CLIP text encoder of two layers; a projected one gives `text_embeds` too."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if is_projected else CLIPTextModel)(config).eval()


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


def open_gates(transformer: Any) -> Any:
    """Lets blocks be heard: fresh gates all but close them, and what is attended to hardly reaches the answer."""
    import torch

    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if (".norm" in name and ".linear." in name) or "_mod." in name:
                parameter.mul_(GATES)
    return transformer.eval()


def fill_empty(transformer: Any, *names: str) -> Any:
    """Draws parameters that their class leaves uninitialised: the same seed is to give the same bytes."""
    import torch

    with torch.no_grad():
        for name in names:
            torch.nn.init.normal_(transformer.get_parameter(name))
    return transformer.eval()
