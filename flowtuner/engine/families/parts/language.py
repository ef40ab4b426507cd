"""Language models as text encoders: the words around a prompt are theirs, and only the prompt's own states are kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from flowtuner.engine.family import Rows, TextEncoder


class LanguageModelText(TextEncoder):
    """The states of one layer; padding is on the right, where a model that looks back only never sees it."""

    layer = -1

    def __init__(self, tokenizer: Any, model: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._max_tokens = max_tokens

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """The tokens of each prompt that are kept."""
        return [len(self.choose(prompt, len(ids))) for prompt, ids in zip(prompts, self._read(prompts), strict=True)]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """The states of the tokens that are kept."""
        rows = [torch.tensor(ids) for ids in self._read(prompts)]
        # What the padding holds does not matter: it is masked, and comes after all that is read.
        ids = pad_sequence(rows, batch_first=True).to(self._model.device)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(ids.device, torch.long)
        states = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[self.layer]
        kept = [self.choose(prompt, len(row)) for prompt, row in zip(prompts, rows, strict=True)]
        return [{"prompt_embeds": states[number, places].clone()} for number, places in enumerate(kept)]

    @abstractmethod
    def frame(self, prompt: str) -> str:
        """The prompt with the words that the model was trained to see around it."""

    def limit(self, prompt: str) -> int:
        """How many tokens of the framed prompt are read."""
        return self._max_tokens

    def choose(self, prompt: str, count: int) -> list[int]:
        """Which of its tokens are kept."""
        return list(range(count))

    def _read(self, prompts: Sequence[str]) -> list[list[int]]:
        return [
            self._tokenizer(self.frame(prompt), truncation=True, max_length=self.limit(prompt)).input_ids
            for prompt in prompts
        ]


class ChatText(LanguageModelText):
    """A prompt as what a user says, in the tokenizer's own template; the states before the last layer."""

    layer = -2

    def frame(self, prompt: str) -> str:
        """The prompt as a user's turn of a chat, the answer about to begin."""
        said: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return said


class TemplateText(LanguageModelText):
    """A prompt inside a fixed template, whose first tokens are not kept."""

    def __init__(self, tokenizer: Any, model: Any, max_tokens: int, template: str, dropped: int) -> None:
        super().__init__(tokenizer, model, max_tokens)
        self._template = template
        self._dropped = dropped

    def frame(self, prompt: str) -> str:
        """The prompt in its place."""
        return self._template.replace("{}", prompt)

    def limit(self, prompt: str) -> int:
        """The tokens that are kept, and those before them."""
        return self._max_tokens + self._dropped

    def choose(self, prompt: str, count: int) -> list[int]:
        """All but the template's beginning."""
        return list(range(self._dropped, count))


class InstructedText(LanguageModelText):
    """A prompt after an instruction, of which its first and last token are kept; the empty prompt stands alone."""

    def __init__(self, tokenizer: Any, model: Any, max_tokens: int, instruction: str) -> None:
        super().__init__(tokenizer, model, max_tokens)
        self._instruction = instruction
        self._lead = len(tokenizer.encode(instruction))

    def frame(self, prompt: str) -> str:
        """The instruction and the prompt in lower case, as the pipeline has it."""
        cleaned = prompt.lower().strip()
        return self._instruction + cleaned if cleaned else ""

    def limit(self, prompt: str) -> int:
        """As many tokens as leave the model its own number of them."""
        return self._max_tokens + self._lead - 2 if self.frame(prompt) else self._max_tokens

    def choose(self, prompt: str, count: int) -> list[int]:
        """The first token, and all from the last one of the instruction on."""
        return [0, *range(self._lead - 1, count)] if self.frame(prompt) else list(range(count))
