"""What one dataset entry asks for, after the global options have filled its gaps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtuner.engine.data.films import FilmSettings, resolve_film
from flowtuner.engine.data.tables import TableSettings
from flowtuner.engine.families import open_family
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry, TrainingConfig
from flowtuner.options.dataset_rules import as_ids

TABLE_STRATEGIES = ("parquet", "csv", "jsonl")
CAPTION_STRATEGIES = ("filename", "textfile", "instanceprompt", *TABLE_STRATEGIES, "huggingface")
CROP_STYLES = ("random", "corner", "center", "centre", "face")
MARKS = {"comma": (",", ", "), "space": (" ", " "), "period": (".", ". ")}
SUBSTITUTION = re.compile(r"s/((?:[^/\\]|\\.)+)/((?:[^/\\]|\\.)*)/?")
CONTROLNET_TYPE = "controlnet"
REFERENCE_TYPES = ("reference_strict", "reference_loose", CONTROLNET_TYPE)
ALIGNED_TYPES = ("reference_strict", CONTROLNET_TYPE)
"""Those that show the same part of the same picture."""
MEGAPIXEL_LIMIT = 10


@dataclass(frozen=True)
class CropSettings:
    """How pictures of one dataset are measured, resized and cropped; sizes are edges or megapixels by `by_edge`."""

    by_edge: bool
    resolution: float
    alignment: int = 64
    rounding: int = 2
    seed: int = 0
    crop: bool = False
    style: str = "random"
    aspect: str = "square"
    aspect_choices: tuple[tuple[float, float], ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    downsample: float | None = None
    minimum_aspect: float | None = None
    maximum_aspect: float | None = None
    max_upscale: float | None = None


@dataclass(frozen=True)
class Shuffle:
    """How the parts of a caption change places."""

    count: int = 1
    seed: int = 0
    marks: tuple[str, str] = MARKS["comma"]
    """What separates the parts, and what is put between them again."""
    fixed: int = 0
    keeps_original: bool = True


@dataclass(frozen=True)
class Cut:
    """What is taken out of captions: a text, or all that a pattern finds."""

    pattern: re.Pattern[str]
    replacement: str = ""

    def apply(self, caption: str) -> str:
        """The caption without it."""
        return self.pattern.sub(self.replacement, caption)


@dataclass(frozen=True)
class CaptionSettings:
    """Where the captions of one dataset come from, and what is done to them."""

    strategy: str = "filename"
    instance_prompts: tuple[str, ...] = ()
    prepend: bool = False
    only_instance: bool = False
    split_lines: bool = True
    ignore_missing: bool = False
    table: TableSettings | None = None
    shuffle: Shuffle | None = None
    cuts: tuple[Cut, ...] = ()


@dataclass(frozen=True)
class DatasetSettings:
    """One dataset of pictures or films."""

    id: str
    captions: CaptionSettings
    crop: CropSettings
    max_samples: int | None = None
    reuses_listing: bool = False
    """Whether what was found last time is taken for what is there."""
    film: FilmSettings | None = None
    """How films are cut, if it holds films."""


def picture_entries(entries: Sequence[DatasetEntry]) -> list[DatasetEntry]:
    """The enabled entries that hold pictures or films to train on."""
    wanted = [entry for entry in entries if entry.dataset_type in ("image", "video")]
    return [entry for entry in wanted if not _pick(entry, "disabled", False)]


def link_references(entries: Sequence[DatasetEntry]) -> dict[str, list[DatasetEntry]]:
    """The conditioning entries of each picture entry, in the order it names them; DataError if one belongs nowhere."""
    pictures = picture_entries(entries)
    conditioning = {entry.id: entry for entry in reference_entries(entries)}
    links: dict[str, list[DatasetEntry]] = {}
    for entry in pictures:
        named = [conditioning[name] for name in as_ids(entry.conditioning_data) if name in conditioning]
        links[entry.id] = named + [
            other for other in conditioning.values() if other.source_dataset_id == entry.id and other not in named
        ]
    used = {entry.id for linked in links.values() for entry in linked}
    for name, entry in conditioning.items():
        if name not in used:
            raise DataError(f"dataset {name}: no dataset of pictures names it in conditioning_data.")
        if entry.conditioning_type not in REFERENCE_TYPES:
            raise DataError(
                f"dataset {name}: conditioning_type {entry.conditioning_type!r} is not supported yet. "
                f"Allowed: {', '.join(REFERENCE_TYPES)}."
            )
    return links


def reference_entries(entries: Sequence[DatasetEntry]) -> list[DatasetEntry]:
    """The enabled entries that hold pictures to draw others after."""
    return [entry for entry in entries if entry.dataset_type == "conditioning" and not _pick(entry, "disabled", False)]


def resolve_references(entry: DatasetEntry, config: TrainingConfig) -> DatasetSettings:
    """As `resolve_dataset`, for pictures that need no captions."""
    reuses = _reuses_listing(entry, config)
    return DatasetSettings(entry.id, CaptionSettings(), _resolve_crop(entry, config), reuses_listing=reuses)


def resolve_dataset(entry: DatasetEntry, config: TrainingConfig) -> DatasetSettings:
    """Fills an entry's gaps from the global options; what is not supported yet is refused by name."""
    return DatasetSettings(
        id=entry.id,
        captions=_resolve_captions(entry, config),
        crop=_resolve_crop(entry, config),
        max_samples=_pick(entry, "max_num_samples", None),
        reuses_listing=_reuses_listing(entry, config),
        film=_resolve_film(entry, config) if entry.dataset_type == "video" else None,
    )


def _resolve_film(entry: DatasetEntry, config: TrainingConfig) -> FilmSettings:
    family = open_family(config.model_family)
    if not family.frames_per_latent:
        raise DataError(f"dataset {entry.id}: dataset_type video: {family.name} draws pictures, not films.")
    if entry.conditioning_data:
        raise DataError(f"dataset {entry.id}: conditioning_data is not supported for films. Leave it out.")
    return resolve_film(entry.id, entry.video, family.frames_per_latent, family.usual_frames)


def _reuses_listing(entry: DatasetEntry, config: TrainingConfig) -> bool:
    return bool(entry.preserve_data_backend_cache or config.preserve_data_backend_cache)


def _resolve_captions(entry: DatasetEntry, config: TrainingConfig) -> CaptionSettings:
    strategy = str(_either(entry, config, "caption_strategy", "filename")).replace("instance_prompt", "instanceprompt")
    if strategy not in CAPTION_STRATEGIES:
        raise DataError(
            f"dataset {entry.id}: caption_strategy {strategy!r} is not supported. "
            f"Allowed: {', '.join(CAPTION_STRATEGIES)}."
        )
    prompts = _either(entry, config, "instance_prompt", None)
    only_instance = bool(_either(entry, config, "only_instance_prompt", False))
    settings = CaptionSettings(
        strategy="instanceprompt" if only_instance else strategy,
        instance_prompts=(prompts,) if isinstance(prompts, str) else tuple(prompts or ()),
        prepend=bool(_either(entry, config, "prepend_instance_prompt", False)),
        only_instance=only_instance,
        split_lines=not _either(entry, config, "disable_multiline_split", False),
        ignore_missing=bool(_either(entry, config, "ignore_missing_files", False)),
        table=_resolve_table(entry, config, strategy) if not only_instance else None,
        shuffle=_resolve_shuffle(entry, config),
        cuts=_read_cuts(entry),
    )
    if not settings.instance_prompts and (settings.prepend or settings.strategy == "instanceprompt"):
        raise DataError(f"dataset {entry.id}: instance_prompt is missing, but the captions are to come from it.")
    return settings


def _resolve_table(entry: DatasetEntry, config: TrainingConfig, strategy: str) -> TableSettings | None:
    if strategy not in TABLE_STRATEGIES or entry.type == strategy:
        return None
    columns = entry.parquet
    path = (columns and columns.path) or entry.csv_file
    if not path:
        raise DataError(
            f"dataset {entry.id}: caption_strategy {strategy} needs a table: "
            '"parquet": {"path": ..., "filename_column": ..., "caption_column": ...}.'
        )
    named = (columns and columns.caption_column) or entry.csv_caption_column or entry.caption_column
    captions = named or config.parquet_caption_column or "caption"
    return TableSettings(
        Path(path),
        (columns and columns.filename_column) or config.parquet_filename_column or "filename",
        (captions,) if isinstance(captions, str) else tuple(captions),
        columns.fallback_caption_column if columns else None,
        columns.identifier_includes_extension if columns else True,
    )


def _resolve_shuffle(entry: DatasetEntry, config: TrainingConfig) -> Shuffle | None:
    asked = entry.caption_shuffle
    if not asked or not asked.enable:
        return None
    seed = int(_pick(config, "seed", 0)) if asked.seed is None else asked.seed
    marks = MARKS.get(asked.split_on, (asked.split_on, asked.split_on))
    return Shuffle(asked.count, seed, marks, asked.position_start, asked.include_original)


def _read_cuts(entry: DatasetEntry) -> tuple[Cut, ...]:
    if not entry.caption_filter_list:
        return ()
    try:
        lines = Path(entry.caption_filter_list).read_text(encoding="utf-8-sig").splitlines()
        return tuple(_read_cut(line) for line in lines if line.strip())
    except (OSError, UnicodeDecodeError, re.error) as error:
        raise DataError(
            f"dataset {entry.id}: caption_filter_list {entry.caption_filter_list} cannot be used: {error}."
        ) from error


def _read_cut(line: str) -> Cut:
    if found := SUBSTITUTION.fullmatch(line):
        return Cut(re.compile(found[1]), found[2])
    return Cut(re.compile(re.escape(line)))


def _resolve_crop(entry: DatasetEntry, config: TrainingConfig) -> CropSettings:
    kind = _either(entry, config, "resolution_type", "pixel_area")
    style = _either(entry, config, "crop_style", "random")
    if style not in CROP_STYLES:
        raise DataError(
            f"dataset {entry.id}: crop_style {style!r} is not supported. Allowed: {', '.join(CROP_STYLES)}."
        )
    sizes = {
        name: _in_unit(_either(entry, config, option, None), kind)
        for name, option in (
            ("minimum", "minimum_image_size"),
            ("maximum", "maximum_image_size"),
            ("downsample", "target_downsample_size"),
        )
    }
    resolution = float(_either(entry, config, "resolution", 1024))
    return CropSettings(
        by_edge=kind == "pixel",
        resolution=resolution**2 / 1e6 if kind == "pixel_area" else resolution,
        alignment=int(_either(entry, config, "aspect_bucket_alignment", 64)),
        rounding=int(_pick(config, "aspect_bucket_rounding", 2)),
        # An unseeded run still has to find its latents again: crops fall back to a fixed seed.
        seed=int(_pick(config, "seed", 0)),
        crop=bool(_pick(entry, "crop", False)),
        style=style,
        aspect=_either(entry, config, "crop_aspect", "square"),
        aspect_choices=_resolve_choices(entry),
        minimum_aspect=_pick(entry, "minimum_aspect_ratio", None),
        maximum_aspect=_pick(entry, "maximum_aspect_ratio", None),
        max_upscale=_either(entry, config, "max_upscale_threshold", None),
        **sizes,
    )


def _resolve_choices(entry: DatasetEntry) -> tuple[tuple[float, float], ...]:
    listed = _pick(entry, "crop_aspect_buckets", ())
    choices = tuple(_aspect_and_weight(value) for value in listed)
    needs = _pick(entry, "crop", False) and _pick(entry, "crop_aspect", "square") in ("closest", "random")
    if needs and not choices:
        raise DataError(
            f"dataset {entry.id}: crop_aspect {entry.crop_aspect!r} needs crop_aspect_buckets, "
            "a list of aspect ratios such as [1.0, 0.75, 1.33]."
        )
    if any(aspect <= 0 or weight < 0 for aspect, weight in choices) or (choices and not any(w for _, w in choices)):
        raise DataError(f"dataset {entry.id}: crop_aspect_buckets need aspects above 0 and weights of at least 0.")
    return choices


def _aspect_and_weight(value: Any) -> tuple[float, float]:
    if isinstance(value, int | float):
        return float(value), 1.0
    plain = value if isinstance(value, dict) else value.model_dump()
    weight = plain.get("weight")
    return float(plain["aspect_bucket"]), 1.0 if weight is None else float(weight)


def _in_unit(size: float | None, kind: str) -> float | None:
    if not size:
        return None
    # pixel_area sizes up to 10 can only be megapixels: nobody trains on ten pixels.
    return size**2 / 1e6 if kind == "pixel_area" and size > MEGAPIXEL_LIMIT else float(size)


def _either(entry: DatasetEntry, config: TrainingConfig, name: str, default: Any) -> Any:
    value = getattr(entry, name, None)
    return _pick(config, name, default) if value is None else value


def _pick(source: Any, name: str, default: Any) -> Any:
    value = getattr(source, name, None)
    return default if value is None else value
