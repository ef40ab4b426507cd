"""Writes the papers of a release into the output folder: README.md, assets/ and simpletuner_config.json."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from flowtuner import durable
from flowtuner.engine.card.facts import CardFacts, public_options
from flowtuner.engine.card.text import Picture, render_card
from flowtuner.engine.validation.prompts import validation_prompts
from flowtuner.engine.validation.render import FOLDER, file_pattern

CARD, OPTIONS, ASSETS = "README.md", "simpletuner_config.json", "assets"


@dataclass(frozen=True)
class _Found:
    prompt: str
    path: Path


def write_papers(output_dir: Path, facts: CardFacts) -> None:
    """Writes all of them; the same run writes the same bytes."""
    pictures = _copy_pictures(output_dir, list(_find_pictures(output_dir, facts)))
    durable.write_text(output_dir / CARD, render_card(facts, pictures))
    durable.write_json(output_dir / OPTIONS, public_options(facts.loaded))


def _find_pictures(output_dir: Path, facts: CardFacts) -> list[_Found]:
    folder = output_dir / FOLDER
    drawn = sorted(path for path in folder.glob("step_*") if path.suffix in (".png", ".gif"))
    steps = [int(found[1]) for path in drawn if (found := re.match(r"step_(\d+)_", path.name))]
    steps = [step for step in steps if step <= facts.step]
    if not steps:
        return []
    return [
        _Found(prompt.prompt, path)
        for prompt in validation_prompts(facts.config)
        for path in drawn
        if re.fullmatch(file_pattern(max(steps), prompt), path.name)
    ]


def _copy_pictures(output_dir: Path, found: list[_Found]) -> list[Picture]:
    if not found:
        return []
    pictures = []
    with durable.atomic_folder(output_dir / ASSETS) as part:
        for number, each in enumerate(found):
            name = f"image_{number}{each.path.suffix}"
            shutil.copyfile(each.path, part / name)
            pictures.append(Picture(each.prompt, f"./{ASSETS}/{name}"))
    return pictures
