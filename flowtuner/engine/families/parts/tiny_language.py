"""Small random language models with tokenizers of their kind: the classes that read prompts for newer families."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from flowtuner.engine.families.parts.tiny import WORDS

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_MARKS = ("<|im_start|>", "<|im_end|>")


def split_words(text: str) -> list[str]:
    """The words of a text, for a tokenizer that is to know them whole."""
    return sorted(set(re.findall(r"[A-Za-z]+", text)))


def build_qwen_tokenizer(words: Sequence[str] = ()) -> Any:
    """A byte-level tokenizer that knows some words whole and a chat's marks."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    pieces, merges = _learn({*WORDS, *words, "user", "assistant"}, space="Ġ")
    vocabulary = dict.fromkeys([*sorted(ByteLevel.alphabet()), *pieces, "<|endoftext|>"])
    return Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)},
        merges=merges,
        additional_special_tokens=list(CHAT_MARKS),
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )


def build_gemma_tokenizer(words: Sequence[str] = ()) -> Any:
    """A tokenizer that knows some words whole, and falls back to bytes."""
    from transformers import GemmaTokenizer

    pieces, merges = _learn({*WORDS, *words}, space="▁")
    letters = [chr(number) for number in range(33, 127)]
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary = dict.fromkeys([*marks, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, *pieces])
    return GemmaTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)},
        merges=merges,
        model_max_length=4096,
        padding_side="right",
        add_bos_token=True,
    )


def build_qwen3(tokenizer: Any, width: int) -> Any:
    """A Qwen3 of two layers."""
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(Qwen3Config(**_shape(tokenizer, width))).eval()


def build_gemma(tokenizer: Any, width: int) -> Any:
    """A Gemma 2 of two layers."""
    from transformers import Gemma2Config, Gemma2Model

    return Gemma2Model(Gemma2Config(**_shape(tokenizer, width), query_pre_attn_scalar=8)).eval()


def build_qwen_vl(tokenizer: Any, width: int) -> Any:
    """A Qwen2.5-VL with two layers for text and one for pictures."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1_000_000.0}
    shape = _shape(tokenizer, width)
    del shape["head_dim"]
    config = Qwen2_5_VLConfig(
        text_config=shape | {"rope_parameters": rope},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": width,
            "fullatt_block_indexes": [0],
        },
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def _shape(tokenizer: Any, width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _learn(words: Iterable[str], space: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges that spell each word from the left; the space before a word joins it last of all."""
    merges: list[tuple[str, str]] = []
    known = sorted(words)
    for word in known:
        merges += [(word[:place], word[place]) for place in range(1, len(word))]
    merges += [(space, word) for word in known]
    merges = list(dict.fromkeys(merges))
    return ["".join(pair) for pair in merges], merges
