"""Writes the map of the house into the README: one line per file, taken from the modules' own docstrings."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("flows", "tasks", "blocks", "flowtuner", "benchmarks")
BEGIN = "<!-- the house: written by docs/house.py -->"
END = "<!-- end of the house -->"
COLUMN = 34


def draw_map(root: Path) -> str:
    """The rooms and their files as an indented list."""
    lines = [line for room in ROOMS if (root / room / "__init__.py").is_file() for line in _draw_folder(root / room, 0)]
    return "\n".join(["```", *lines, "```"])


def update(readme: str, house: str) -> str:
    """The README with the map between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{house}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Writes the README; with --check only says whether it is up to date."""
    readme = ROOT / "README.md"
    present = readme.read_text(encoding="utf-8")
    if BEGIN not in present or END not in present:
        sys.stderr.write(f"README.md has no place for the map: add the lines {BEGIN} and {END}\n")
        return 1
    wanted = update(present, draw_map(ROOT))
    if "--check" in arguments:
        if present != wanted:
            sys.stderr.write("README.md: the map of the house is out of date; run `make format`\n")
        return int(present != wanted)
    readme.write_text(wanted, encoding="utf-8")
    return 0


def _draw_folder(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield _line(file.name, file, depth + 1)
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").is_file():
            yield from _draw_folder(inner, depth + 1)


def _line(name: str, file: Path, depth: int) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    sentence = " ".join(docstring.partition("\n\n")[0].split())
    return f"{'  ' * depth + name:{COLUMN}} {sentence}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
