"""Draws the same prompts with the untrained and the trained model and judges them; a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowtuner.demo.judge import judge, score
from flowtuner.demo.scores import SHEET, Comparison, write_comparison
from flowtuner.demo.shapes import EDGE, Figure, Pixels, every_figure
from flowtuner.demo.sheet import Panel, save_sheet
from flowtuner.engine.families import open_family
from flowtuner.engine.family import frames_of
from flowtuner.engine.run import RunSpec
from flowtuner.options import TrainingConfig

PICTURES_PER_FIGURE = 2
FIRST_SEED = 101  # validation uses others


def compare(spec: RunSpec, folder: Path) -> Comparison:
    """Judges the model a run started from and the one it released; leaves a contact sheet and the scores."""
    config = spec.loaded.config
    wanted = [figure for figure in every_figure() for _ in range(PICTURES_PER_FIGURE)]
    before = draw_all(Path(str(config.pretrained_model_name_or_path)), config, wanted)
    after = draw_all(spec.output_dir / "pipeline", config, wanted)
    panels = [Panel("untrained", before, _verdicts(before, wanted)), Panel("trained", after, _verdicts(after, wanted))]
    save_sheet(panels, wanted, folder / SHEET)
    result = Comparison(score(before, wanted), score(after, wanted), len(wanted))
    write_comparison(result, folder)
    return result


def draw_all(model_dir: Path, config: TrainingConfig, wanted: Sequence[Figure]) -> list[Pixels]:
    """Draws one picture per wanted figure through the engine's own model family."""
    import torch

    family = open_family(config.model_family)(model_dir, config)
    device, dtype = torch.device("cpu"), torch.float32
    texts = family.load_text_encoder(dtype, device).encode([figure.caption for figure in wanted] + [""])
    with torch.no_grad():
        drawings = family.render_batch(
            family.load_model(dtype, device),
            family.load_vae(dtype, device),
            texts[:-1],
            texts[-1],
            width=EDGE,
            height=EDGE,
            steps=config.validation_num_inference_steps,
            guidance=config.validation_guidance,
            seeds=range(FIRST_SEED, FIRST_SEED + len(wanted)),
        )
    return [np.asarray(frames_of(drawing)[0].convert("RGB")) for drawing in drawings]


def _verdicts(pictures: Sequence[Pixels], wanted: Sequence[Figure]) -> list[bool]:
    verdicts = [judge(pixels) for pixels in pictures]
    return [
        (verdict.colour, verdict.shape) == (figure.colour, figure.shape)
        for verdict, figure in zip(verdicts, wanted, strict=True)
    ]


if __name__ == "__main__":
    compare(RunSpec.load(Path(sys.argv[1])), Path(sys.argv[2]))
