"""CLIP as the U-Nets read it: every token of a prompt that is padded to CLIP's length, from one encoder or two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flowtuner.engine.family import Rows, TextEncoder
from flowtuner.errors import ConfigError, Fault


class ClipTokens(TextEncoder):
    """One encoder's last layer, or some layers before it, normalised as the last one is."""

    def __init__(self, tokenizer: Any, model: Any, max_tokens: int, skip: int) -> None:
        check_skip(skip, model, counted_from=1)
        self._tokenizer = tokenizer
        self._model = model
        self._max_tokens = max_tokens
        self._skip = skip

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens per prompt, start and end marks included."""
        return _count(self._tokenizer, prompts, self._max_tokens)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """The states of all tokens; every prompt has the same length."""
        ids = pad_tokens(self._tokenizer, prompts, self._max_tokens).to(self._model.device)
        if not self._skip:
            states = self._model(ids).last_hidden_state
        else:
            layers = self._model(ids, output_hidden_states=True).hidden_states
            norm = getattr(self._model, "text_model", self._model).final_layer_norm  # its place depends on transformers
            states = norm(layers[-(self._skip + 1)])
        return [{"prompt_embeds": state.clone()} for state in states]


class TwoClips(TextEncoder):
    """Two encoders side by side, each without its last layer, and the summaries of those that give one."""

    def __init__(self, pairs: Sequence[tuple[Any, Any]], max_tokens: int, skip: int) -> None:
        for _, model in pairs:
            check_skip(skip, model, counted_from=2)
        self._pairs = list(pairs)
        self._max_tokens = max_tokens
        self._skip = skip

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens per prompt, start and end marks included."""
        return _count(self._pairs[0][0], prompts, self._max_tokens)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """Both encoders' states of all tokens, joined; every prompt has the same length."""
        joined, summaries = [], []
        for tokenizer, model in self._pairs:
            ids = pad_tokens(tokenizer, prompts, self._max_tokens).to(model.device)
            answer = model(ids, output_hidden_states=True)
            joined.append(answer.hidden_states[-(self._skip + 2)])
            if "text_embeds" in answer:
                summaries.append(answer.text_embeds)
        states, pooled = torch.cat(joined, dim=-1), torch.cat(summaries, dim=-1)
        return [
            {"prompt_embeds": state.clone(), "pooled_prompt_embeds": summary.clone()}
            for state, summary in zip(states, pooled, strict=True)
        ]


def pad_tokens(tokenizer: Any, prompts: Sequence[str], length: int) -> torch.Tensor:
    """Token ids of prompts that are cut or padded to one length."""
    ids: torch.Tensor = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
    return ids


def check_skip(skip: int, model: Any, counted_from: int) -> None:
    """Refuses to leave out more layers than there are."""
    most = model.config.num_hidden_layers + 1 - counted_from
    if skip > most:
        problem = f"the text encoder has {model.config.num_hidden_layers} layers only"
        raise ConfigError([Fault("clip_skip", skip, "", problem, f"0 to {most}")])


def _count(tokenizer: Any, prompts: Sequence[str], max_tokens: int) -> list[int]:
    ids = tokenizer(list(prompts), truncation=True, max_length=max_tokens).input_ids
    return [len(row) for row in ids]
