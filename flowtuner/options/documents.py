"""Configuration files: read with the line of every key, so that a fault can say where it stands."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowtuner.errors import ConfigError, Fault
from flowtuner.options.origin import Origin

Where = tuple[str | int, ...]

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class Document:
    """A parsed file, or inline JSON, and the lines its parts stand in."""

    name: str
    value: Any
    lines: Mapping[Where, int] = field(default_factory=dict)
    kind: Any = "file"

    def origin(self, *where: str | int) -> Origin:
        """Where a part stands: the file and, if known, the line."""
        line = next(
            (self.lines[where[:depth]] for depth in range(len(where), 0, -1) if where[:depth] in self.lines), None
        )
        return Origin(self.kind, self.name if line is None else f"{self.name}, line {line}")


def read_document(path: Path, option: str) -> Document:
    """Reads a JSON or TOML file; what is wrong with it becomes a fault of the option that named it."""
    name = display(path)
    text = read_text(path, option)
    return parse_toml(text, name, option) if path.suffix == ".toml" else parse_json(text, name, option)


def read_text(path: Path, option: str) -> str:
    """Reads a file of UTF-8 text; one that cannot be read becomes a fault of the option that named it."""
    name = display(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(option, None, name, "is not UTF-8 text", suggestion="Save it as UTF-8.")]) from error
    except OSError as error:
        raise ConfigError([Fault(option, None, name, f"cannot be read: {error.strerror}")]) from error


def parse_json(text: str, name: str, option: str) -> Document:
    """Parses JSON; a mistake is reported with line and column."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}, line {error.lineno}, column {error.colno}"
        raise ConfigError([Fault(option, None, where, f"is not JSON: {error.msg}")]) from error
    except RecursionError as error:
        raise ConfigError([Fault(option, None, name, "is nested too deeply")]) from error
    lines, twice = _find_lines(text)
    if twice:
        raise ConfigError(
            [Fault(option, None, f"{name}, line {line}", f"says {key!r} twice", "", "Keep one.") for key, line in twice]
        )
    return Document(name, value, lines)


def parse_toml(text: str, name: str, option: str) -> Document:
    """Parses TOML; a mistake is reported with line and column."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = TOML_PLACE.search(str(error))
        last = text.count("\n") + 1
        line, column = (found[1] or last, found[2] or 1) if found else (last, 1)
        reason = TOML_PLACE.sub("", str(error))
        where = f"{name}, line {line}, column {column}"
        raise ConfigError([Fault(option, None, where, f"is not TOML: {reason}")]) from error
    return Document(name, value, _find_toml_lines(text, value))


def display(path: Path) -> str:
    """A path as the user knows it: relative to the working directory where it lies inside."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _find_lines(text: str) -> tuple[dict[Where, int], list[tuple[str | int, int]]]:
    lines: dict[Where, int] = {}
    walker = _Walker(lines)
    position, line = 0, 1
    for part in TOKEN.finditer(text):
        line += text.count("\n", position, part.start())
        position = part.start()
        walker.see(part[0], line)
    return lines, walker.twice


class _Walker:
    """Follows the parts of valid JSON and notes the line of every key and list item."""

    def __init__(self, lines: dict[Where, int]) -> None:
        self.lines = lines
        self.twice: list[tuple[str | int, int]] = []
        self.path: list[str | int] = []
        self.in_list: list[bool] = []
        self.expects_key = False

    def see(self, part: str, line: int) -> None:
        if part in ("]", "}"):
            self._close()
        elif part == ",":
            self._step()
        elif part != ":":
            self._enter(part, line)

    def _enter(self, part: str, line: int) -> None:
        if self.expects_key:
            self.path[-1] = json.loads(part)
            self.expects_key = False
            if tuple(self.path) in self.lines:
                self.twice.append((self.path[-1], line))
            self.lines[tuple(self.path)] = line
            return
        self.lines.setdefault(tuple(self.path), line)
        if part in ("[", "{"):
            self.in_list.append(part == "[")
            self.path.append(0 if part == "[" else "")
            self.expects_key = part == "{"

    def _step(self) -> None:
        if self.in_list[-1]:
            self.path[-1] = int(self.path[-1]) + 1
        else:
            self.expects_key = True

    def _close(self) -> None:
        self.in_list.pop()
        self.path.pop()
        self.expects_key = False


def _find_toml_lines(text: str, value: Mapping[str, Any]) -> dict[Where, int]:
    lines: dict[Where, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"""\s*["']?([\w-]+)["']?\s*=""", line)
        if found and found[1] in value:
            lines.setdefault((found[1],), number)
    return lines
