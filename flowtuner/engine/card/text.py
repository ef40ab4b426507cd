"""The model card as text: the metadata that the Hub reads, and what people want to know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowtuner.engine.card.code import render_code
from flowtuner.engine.card.facts import CardFacts, public_value

Row = tuple[str, Any]


@dataclass(frozen=True)
class Picture:
    """A picture that the trained model drew, by its place beside the card."""

    prompt: str
    url: str


def render_card(facts: CardFacts, pictures: Sequence[Picture]) -> str:
    """The whole card."""
    parts = [
        _metadata(facts, pictures),
        f"# {facts.title}",
        _introduction(facts),
        facts.config.model_card_note or "",
        _gallery(pictures),
        _table("Validation settings", _validation_rows(facts)) if pictures else "",
        _table("Training settings", _training_rows(facts)),
        _table("Adapter", _adapter_rows(facts)) if facts.is_lora else "",
        _datasets(facts),
        f"## Use\n\n```python\n{render_code(facts)}\n```",
        _ema_note(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def tags_of(facts: CardFacts) -> list[str]:
    """What the model is found by."""
    config = facts.config
    audience = [] if config.model_card_safe_for_work else ["not-for-all-audiences"]
    adapter = ["template:sd-lora", config.lora_type] if facts.is_lora else []
    family = config.model_family
    return [
        family, f"{family}-diffusers", facts.family.pipeline_tag, "diffusers", "flowtuner", "simpletuner", "fine-tuned",
        *audience, config.model_type, *adapter,
    ]  # fmt: skip


def _metadata(facts: CardFacts, pictures: Sequence[Picture]) -> str:
    # Texts in JSON are texts in YAML, whatever stands in them.
    lines = ["---", f"license: {json.dumps(facts.family.licence)}", "library_name: diffusers"]
    if facts.base_model:
        relation = "adapter" if facts.is_lora else "finetune"
        lines += [f"base_model: {json.dumps(facts.base_model)}", f"base_model_relation: {relation}"]
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags_of(facts))]
    lines += [f"pipeline_tag: {facts.family.pipeline_tag}", "inference: true"]
    if pictures:
        lines += ["widget:", *_widgets(facts, pictures)]
    return "\n".join([*lines, "---"])


def _widgets(facts: CardFacts, pictures: Sequence[Picture]) -> Iterator[str]:
    negative = facts.config.validation_negative_prompt or ""
    for picture in pictures:
        yield f"- text: {_quoted(picture.prompt or 'unconditional (blank prompt)')}"
        yield f"  parameters:\n    negative_prompt: {_quoted(negative)}"
        yield f"  output:\n    url: {_quoted(picture.url)}"


def _introduction(facts: CardFacts) -> str:
    kind = "A LoRA adapter for" if facts.is_lora else "A fine-tuned version of"
    base = facts.base_model
    of = f"[{base}](https://huggingface.co/{base})" if base else f"a model of the family {facts.config.model_family}"
    return f"{kind} {of}, trained for {facts.step} steps."


def _gallery(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    return "## Pictures\n\n<Gallery />\n\n" + "\n".join(
        f"- {_inline(picture.prompt) if picture.prompt else 'unconditional'}" for picture in pictures
    )


def _validation_rows(facts: CardFacts) -> Iterator[Row]:
    config = facts.config
    yield "Guidance", config.validation_guidance
    yield "Inference steps", config.validation_num_inference_steps
    yield "Resolution", config.validation_resolution
    yield "Seed", config.validation_seed
    yield "Negative prompt", config.validation_negative_prompt or "none"


def _training_rows(facts: CardFacts) -> Iterator[Row]:
    config = facts.config
    batch = config.train_batch_size
    yield "Steps", facts.step
    yield "Learning rate", config.learning_rate
    yield "Schedule", f"{config.lr_scheduler}, {config.lr_warmup_steps} steps of warmup"
    yield "Largest gradient norm", config.max_grad_norm
    yield "Batch size", f"{batch * config.gradient_accumulation_steps} ({batch} at once)"
    yield "Gradient accumulation", config.gradient_accumulation_steps
    yield "Optimizer", config.optimizer
    yield "Optimizer settings", config.optimizer_config
    yield "Precision", config.mixed_precision
    yield "Base model's precision", config.base_model_precision
    yield "Gradient checkpointing", config.gradient_checkpointing
    yield "Caption dropout", config.caption_dropout_probability
    yield "Prediction", facts.family.prediction
    yield "Seed", config.seed


def _adapter_rows(facts: CardFacts) -> Iterator[Row]:
    config = facts.config
    yield "Kind", config.lora_type
    if config.lora_type == "standard":
        yield "Rank", config.lora_rank
        yield "Alpha", config.lora_alpha if config.lora_alpha is not None else config.lora_rank
        yield "Dropout", config.lora_dropout
        yield "DoRA", config.use_dora


def _datasets(facts: CardFacts) -> str:
    if not facts.datasets:
        return ""
    rows = ["## Data", "", "| dataset | pictures | repeats | resolution | cropped |", "|---|---|---|---|---|"]
    for entry in facts.datasets:
        size = facts.config.resolution if entry.resolution is None else entry.resolution
        unit = "megapixels" if (entry.resolution_type or facts.config.resolution_type) == "area" else "pixels"
        cropped = f"{entry.crop_style}, {entry.crop_aspect}" if entry.crop else "no"
        cells = (entry.id, facts.pictures[str(entry.id)], entry.repeats, f"{size:g} {unit}", cropped)
        rows.append(f"| {' | '.join(_inline(cell) for cell in cells)} |")
    return "\n".join(rows)


def _ema_note(facts: CardFacts) -> str:
    if not facts.config.use_ema:
        return ""
    return "An exponential moving average of the weights was kept while training."


def _table(title: str, rows: Iterator[Row]) -> str:
    shown = [f"| {name} | {_inline(value)} |" for name, value in rows if value not in (None, "")]
    return "\n".join([f"## {title}", "", "| setting | value |", "|---|---|", *shown])


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:g}" if isinstance(value, float) else str(public_value(value))
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
