"""Writes docs/options.md from the fields: `python -m flowtuner.options.documentation [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from flowtuner.options.dataset import ENTRY_GROUPS
from flowtuner.options.schema import Flag, flags, flags_of

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
HEADER = """# Options

This page is written by `python -m flowtuner.options.documentation`; change the fields in `flowtuner/options` instead.

Every option may stand in `config/<environment>/config.json` (or `.toml`), as a flag `--name=value`, or in a Python
dict, with or without `--` in front. Later sources win: default, config file, environment variables
(`CONFIG_BACKEND=env`), flags, Python values. `{env:NAME}` in any text is replaced by that environment variable.
*(no effect yet)* marks options that are read and checked, but that the engine does not act on yet; `flowtuner check`
names the ones you set.
"""
ENTRIES = """
# Dataset entries

The file named by `data_backend_config` holds a list of entries, each with these keys. Sizes and captions that an
entry does not mention come from the options of the same name.
"""


def render() -> str:
    """The whole page."""
    groups: dict[str, list[Flag]] = {}
    for flag in flags():
        groups.setdefault(flag.section, []).append(flag)
    lines = [HEADER]
    for title, members in groups.items():
        lines += _render_group(title, members)
    lines.append(ENTRIES)
    for title, model in ENTRY_GROUPS.items():
        lines += _render_group(title, flags_of(model, title))
    return "\n".join(lines).rstrip() + "\n"


def _render_group(title: str, members: Iterable[Flag]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| name | allowed | default | meaning |\n|---|---|---|---|"
    yield from (_render_row(flag) for flag in members)
    yield ""


def _render_row(flag: Flag) -> str:
    default = "required" if flag.is_required else _render_default(flag.default)
    also = f" Also: {', '.join(f'`{alias}`' for alias in flag.aliases)}." if flag.aliases else ""
    partly = {"accepted": " *(no effect yet)*", "partly": " *(some values have no effect yet)*"}.get(flag.status, "")
    cells = (f"`{flag.name}`", flag.allowed, default, f"{flag.description}{also}{partly}")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _render_default(value: object) -> str:
    if value is None or value == []:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main(arguments: list[str]) -> int:
    """Writes the page; with `--check` only says whether it is up to date."""
    wanted = render()
    if "--check" in arguments:
        is_current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == wanted
        if not is_current:
            sys.stderr.write(f"{PAGE} is out of date: run python -m flowtuner.options.documentation\n")
        return 0 if is_current else 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
