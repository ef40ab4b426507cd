"""The captions of a picture, by the strategy its dataset asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.order import permute
from flowtuner.engine.data.settings import CaptionSettings, Shuffle
from flowtuner.engine.data.tables import CaptionTable

ReadText = Callable[[str], str]


class MissingCaptionError(ValueError):
    """A picture has no caption that can be read; the text says why."""


class CaptionReader:
    """Reads the captions of one dataset's pictures."""

    def __init__(self, settings: CaptionSettings, root: str, read_text: ReadText, table: CaptionTable | None) -> None:
        self._settings = settings
        self._root = root
        self._read_text = read_text
        self._table = table

    def read(self, file: FoundFile) -> tuple[str, ...]:
        """All alternative captions of a picture; none only if a missing one is to be ignored."""
        settings = self._settings
        if settings.strategy == "instanceprompt":
            return settings.instance_prompts
        captions = self._read_own(file)
        for cut in settings.cuts:
            captions = tuple(cut.apply(caption) for caption in captions)
        if settings.shuffle:
            captions = tuple(dict.fromkeys(one for caption in captions for one in shuffle(caption, settings.shuffle)))
        if not settings.prepend:
            return captions
        return tuple(f"{prompt} {caption}".strip() for prompt in settings.instance_prompts for caption in captions)

    def _read_own(self, file: FoundFile) -> tuple[str, ...]:
        if self._settings.strategy == "filename":
            return _caption_of_name(file.path)
        if self._settings.strategy == "textfile":
            return self._read_textfile(file.path)
        relative = file.path.removeprefix(self._root)
        captions = self._table.find(relative) if self._table else file.captions
        if captions is None or not any(captions):
            if self._settings.ignore_missing:
                return ()
            where = "the table has no caption for it" if self._table else "its row has no caption"
            raise MissingCaptionError(f"{where}; add one, or set ignore_missing_files to leave such pictures out")
        if not self._settings.split_lines:
            return captions
        return tuple(line for caption in captions for line in _split(caption)) or ("",)

    def _read_textfile(self, path: str) -> tuple[str, ...]:
        source = os.path.splitext(path)[0] + ".txt"
        name = os.path.basename(source)
        try:
            text = self._read_text(source).strip()
        except FileNotFoundError:
            if self._settings.ignore_missing:
                return ()
            raise MissingCaptionError(
                f"its caption file {name} is missing; write it, or set caption_strategy to filename"
            ) from None
        except UnicodeDecodeError as error:
            raise MissingCaptionError(f"its caption file {name} is not UTF-8") from error
        except OSError as error:
            raise MissingCaptionError(f"its caption file {name} cannot be read: {error.strerror}") from error
        if not self._settings.split_lines:
            return (text,)
        return tuple(_split(text)) or ("",)


def shuffle(caption: str, how: Shuffle) -> Iterable[str]:
    """A caption with its parts in other orders: a function of the caption and the seed alone."""
    if how.keeps_original:
        yield caption
    mark, glue = how.marks
    parts = [part.strip() for part in caption.split(mark) if part.strip()]
    fixed, loose = parts[: how.fixed], parts[how.fixed :]
    for number in range(how.count):
        order = permute(len(loose), how.seed, "parts", caption, number)
        yield glue.join([*fixed, *(loose[place] for place in order)])


def _caption_of_name(path: str) -> tuple[str, ...]:
    caption = os.path.splitext(os.path.basename(path))[0].replace("_", " ")
    if any("\ud800" <= character <= "\udfff" for character in caption):
        raise MissingCaptionError("its name is not UTF-8, so it cannot be its caption; rename it")
    return (caption,)


def _split(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
