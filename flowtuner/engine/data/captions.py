"""The captions of a picture, by the strategy its dataset asks for."""

from __future__ import annotations

import os

from flowtuner.engine.data.settings import CaptionSettings


class MissingCaptionError(ValueError):
    """A picture has no caption that can be read; the text says why."""


def read_captions(path: str, settings: CaptionSettings) -> tuple[str, ...]:
    """All alternative captions of a picture; none only if a missing file is to be ignored."""
    if settings.strategy == "instanceprompt":
        return settings.instance_prompts
    own = _caption_of_name(path) if settings.strategy == "filename" else _read_textfile(path, settings)
    if not settings.prepend:
        return own
    return tuple(f"{prompt} {caption}".strip() for prompt in settings.instance_prompts for caption in own)


def _caption_of_name(path: str) -> tuple[str, ...]:
    caption = os.path.splitext(os.path.basename(path))[0].replace("_", " ")
    if any("\ud800" <= character <= "\udfff" for character in caption):
        raise MissingCaptionError("its name is not UTF-8, so it cannot be its caption; rename it")
    return (caption,)


def _read_textfile(path: str, settings: CaptionSettings) -> tuple[str, ...]:
    source = os.path.splitext(path)[0] + ".txt"
    name = os.path.basename(source)
    try:
        with open(source, encoding="utf-8-sig") as file:
            text = file.read().strip()
    except FileNotFoundError:
        if settings.ignore_missing:
            return ()
        raise MissingCaptionError(
            f"its caption file {name} is missing; write it, or set caption_strategy to filename"
        ) from None
    except UnicodeDecodeError as error:
        raise MissingCaptionError(f"its caption file {name} is not UTF-8") from error
    except OSError as error:
        raise MissingCaptionError(f"its caption file {name} cannot be read: {error.strerror}") from error
    if not settings.split_lines:
        return (text,)
    return tuple(line.strip() for line in text.splitlines() if line.strip()) or ("",)
