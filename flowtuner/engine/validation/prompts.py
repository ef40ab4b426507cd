"""The validation prompts that the options name; without torch, since the text cache asks for them first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtuner.durable import read_json
from flowtuner.errors import ConfigError, Fault

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

UNCONDITIONAL = "unconditional"
LIBRARY = {
    "portrait": "a portrait photograph of an old sailor with a grey beard, soft window light",
    "animal": "a red fox standing in fresh snow at the edge of a forest",
    "landscape": "a wide mountain valley with a river at sunrise, mist between the trees",
    "city": "a rainy street at night with neon signs reflected in the puddles",
    "food": "a bowl of ramen with a soft egg on a wooden table, seen from above",
    "object": "a blue ceramic teapot on a white background, studio photograph",
    "text": "a wooden sign that reads WELCOME in front of a small house",
    "drawing": "a watercolour drawing of a sailing boat on a calm lake",
    "counting": "three green apples and two yellow lemons in a glass bowl",
    "relation": "a small black cat asleep on top of a stack of books",
}
IS_TRUE = ("true", "1", "yes", "default")
IS_FALSE = ("", "false", "0", "no", "none")


@dataclass(frozen=True)
class ValidationPrompt:
    """One prompt and the short name under which its pictures are filed."""

    shortname: str
    prompt: str


def validation_prompts(config: TrainingConfig) -> list[ValidationPrompt]:
    """All prompts in the order they are drawn; none if validation is off or nothing was asked for."""
    if config.validation_disable:
        return []
    named = dict(_libraries(config))
    if config.validation_prompt:
        named["validation"] = config.validation_prompt
    if not named:
        return []
    first = {} if config.validation_disable_unconditional else {UNCONDITIONAL: ""}
    return [ValidationPrompt(name, prompt) for name, prompt in (first | named).items()]


def texts_to_encode(config: TrainingConfig) -> list[str]:
    """Every text that validation needs an embedding of: the prompts and the negative one."""
    prompts = [entry.prompt for entry in validation_prompts(config)]
    return list(dict.fromkeys([*prompts, config.validation_negative_prompt or ""])) if prompts else []


def _libraries(config: TrainingConfig) -> Iterator[tuple[str, str]]:
    wanted = str(config.validation_prompt_library or "").strip()
    if wanted.lower() in IS_TRUE:
        yield from LIBRARY.items()
    elif wanted.lower() not in IS_FALSE:
        yield from _read_library("validation_prompt_library", Path(wanted)).items()
    if config.user_prompt_library:
        yield from _read_library("user_prompt_library", Path(config.user_prompt_library)).items()


def _read_library(option: str, path: Path) -> dict[str, str]:
    shape = 'a JSON file {"short name": "prompt", ...}'
    try:
        value = read_json(path.expanduser())
    except OSError as error:
        raise _refuse(option, path, f"the file cannot be read: {error.strerror}", shape) from error
    except ValueError as error:
        raise _refuse(option, path, f"the file is not valid JSON: {error}", shape) from error
    if not isinstance(value, dict) or not all(isinstance(prompt, str) for prompt in value.values()):
        raise _refuse(option, path, "the file does not map short names to prompts", shape)
    return value


def _refuse(option: str, path: Path, problem: str, allowed: str) -> ConfigError:
    value: Any = str(path)
    return ConfigError([Fault(option, value, "", problem, allowed)])
