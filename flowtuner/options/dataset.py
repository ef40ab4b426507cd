"""One entry of the dataloader file."""

from pathlib import Path
from typing import Any, Literal

from flowtuner.options.fields import Section, option
from flowtuner.options.sections.data import CAPTIONS_BUILT, CaptionStrategy, ResolutionType

DatasetType = Literal[
    "image", "video", "audio", "conditioning", "eval", "text_embeds", "image_embeds", "conditioning_image_embeds",
    "caption", "grounding", "distillation_cache",
]  # fmt: skip

# What holds pictures, films or sound of its own; the others hold caches or captions.
MEDIA_TYPES = ("image", "video", "audio", "conditioning", "eval")
TRAINED_TYPES = ("image", "video", "audio")


class AspectBucket(Section):
    """An aspect ratio to crop to, and how often."""

    aspect_bucket: float = option(..., "Width over height.", gt=0)
    weight: float = option(1.0, "How often, against the others.", ge=0)


class CaptionShuffle(Section):
    """How the parts of a caption change places."""

    enable: bool = option(False, "Shuffles.")
    count: int = option(1, "Shuffled captions per picture.", ge=1)
    seed: int | None = option(None, "Makes it repeatable.")
    split_on: str = option("comma", "What separates the parts: comma, space, period, or a text.")
    position_start: int = option(0, "Parts at the start that stay in place.", ge=0)
    include_original: bool = option(True, "Keeps the original too.")


class TableColumns(Section):
    """A table of captions: which file, and which of its columns."""

    path: Path | None = option(None, "The table: .parquet, .csv, .tsv or .jsonl.", path="created")
    filename_column: str | None = option(None, "Column of file names; empty: the global option, then `filename`.")
    caption_column: str | list[str] | None = option(
        None, "Column of captions, or several; empty: the global option, then `caption`."
    )
    fallback_caption_column: str | None = option(None, "Column for rows whose caption is empty.")
    identifier_includes_extension: bool = option(True, "File names in the table have their suffix.")
    width_column: str | None = option(None, "Column of widths; Flowtuner measures the pictures themselves.")
    height_column: str | None = option(None, "Column of heights, likewise.")


class HubSettings(Section):
    """A data set of the `datasets` library."""

    dataset_name: str | None = option(None, "Name on the Hub, or a local folder.")
    split: str | None = option(None, "Its split; empty: train.")
    revision: str | None = option(None, "Its revision.")
    image_column: str | None = option(None, "Column of pictures; empty: `image`.")
    caption_column: str | list[str] | None = option(None, "Column of captions, or several; empty: `caption`.")
    streaming: bool = option(False, "Takes the rows as they come.")
    width_column: str | None = option(None, "Column of widths; Flowtuner measures the pictures themselves.")
    height_column: str | None = option(None, "Column of heights, likewise.")


class VideoSettings(Section):
    """How films are cut."""

    num_frames: int | None = option(None, "Frames of a sample.", ge=1)
    min_frames: int | None = option(None, "Shorter films are left out.", ge=1)
    max_frames: int | None = option(None, "Longer films are left out.", ge=1)
    is_i2v: bool = option(False, "Trains from the first frame.")
    bucket_strategy: Literal["aspect_ratio", "resolution_frames"] = option("aspect_ratio", "How films are sorted.")
    frame_interval: int | None = option(None, "Frames between samples of length.", ge=1)


class _Place(Section):
    id: str = option(..., "Name of the entry; caches and messages use it.")
    type: Literal["local", "aws", "csv", "huggingface", "webshart", "memory"] = option(
        "local", "Where its files are.", built=["local", "aws", "csv", "huggingface"]
    )
    dataset_type: DatasetType = option(
        "image",
        "What it holds.",
        values={"images": "image", "text_embed": "text_embeds"},
        built=["image", "video", "conditioning", "text_embeds"],
    )
    disabled: bool = option(False, "Leaves the entry out.", aliases=["disable"])
    instance_data_dir: Path | None = option(None, "Folder of the files.", path="created")
    aws_data_prefix: str | None = option(None, "Folder inside the bucket.")
    aws_bucket_name: str | None = option(None, "Bucket.")
    aws_region_name: str | None = option(None, "Region of the bucket.")
    aws_endpoint_url: str | None = option(None, "Address of another S3 service.")
    aws_access_key_id: str | None = option(None, "Key id.")
    aws_secret_access_key: str | None = option(None, "Secret key.")
    csv_file: Path | None = option(None, "Table of addresses.", path="created")
    csv_url_column: str | None = option(None, "Its column of addresses; empty: `url`.")
    csv_caption_column: str | None = option(None, "Its column of captions; empty: `caption`.")
    csv_cache_dir: Path | None = option(None, "Where downloads are kept; empty: below cache_dir.", path="created")
    dataset_name: str | None = option(None, "Name on the Hub, or a local folder (huggingface).")
    split: str | None = option(None, "Its split; empty: train.")
    revision: str | None = option(None, "Its revision.")
    image_column: str | None = option(None, "Its column of pictures; empty: `image`.")
    caption_column: str | list[str] | None = option(None, "Its column of captions, or several; empty: `caption`.")
    streaming: bool = option(False, "Takes its rows as they come, and keeps their pictures.")
    parquet: TableColumns | None = option(None, "Table of captions, for caption_strategy parquet, csv and jsonl.")
    huggingface: HubSettings | None = option(None, "The same keys in an object of their own.")
    webshart: dict[str, Any] | None = option(None, "Settings of a webshart dataset.", accepted=True)
    metadata_backend: Literal["discovery", "parquet", "huggingface", "webshart"] = option(
        "discovery",
        "Where sizes come from; Flowtuner measures every picture itself.",
        values={"json": "discovery"},
        built=["discovery", "parquet", "huggingface"],
    )


class _Captions(Section):
    caption_strategy: CaptionStrategy | None = option(
        None,
        "Where captions come from; empty: the global option, or the table itself for csv and huggingface.",
        values={"instance_prompt": "instanceprompt"},
        built=CAPTIONS_BUILT,
    )
    instance_prompt: str | list[str] | None = option(None, "A caption for every picture; a list takes turns.")
    prepend_instance_prompt: bool | None = option(None, "Puts it in front of the caption.")
    only_instance_prompt: bool | None = option(None, "Uses it in place of captions.")
    disable_multiline_split: bool | None = option(None, "A caption file with several lines is one caption.")
    ignore_missing_files: bool | None = option(None, "A missing caption file leaves its picture out.")
    caption_shuffle: CaptionShuffle | None = option(None, "Shuffles the parts of captions.")
    caption_filter_list: Path | None = option(
        None, "A file of texts (or s/pattern/replacement/) to be cut out of captions, one a line.", path="created"
    )


class _Sizes(Section):
    resolution: float | None = option(None, "Size of the pictures; empty: the global option.", gt=0)
    resolution_type: ResolutionType | None = option(None, "Its unit; empty: the global option.")
    minimum_image_size: float | None = option(None, "Smaller pictures are left out; 0: none.", ge=0)
    maximum_image_size: float | None = option(None, "Larger pictures are reduced before cropping; 0: none.", ge=0)
    target_downsample_size: float | None = option(None, "Size that larger pictures are reduced to.", ge=0)
    minimum_aspect_ratio: float | None = option(None, "Narrower pictures are left out.", gt=0)
    maximum_aspect_ratio: float | None = option(None, "Wider pictures are left out.", gt=0)
    max_upscale_threshold: float | None = option(None, "Largest share by which a picture may be enlarged.", gt=0)
    max_num_samples: int | None = option(None, "Uses this many pictures at most.", ge=1)
    crop: bool = option(False, "Crops pictures.")
    crop_style: Literal["random", "corner", "center", "face"] = option(
        "random", "Which part is kept.", values={"centre": "center"}
    )
    crop_aspect: Literal["square", "preserve", "closest", "random"] = option("square", "Shape of the crop.")
    crop_aspect_buckets: list[float | AspectBucket] | None = option(
        None, "Aspect ratios that crop_aspect=closest and random choose from."
    )
    aspect_bucket_alignment: Literal[8, 16, 24, 32, 64] | None = option(
        None, "Edges are multiples of this; empty: the global option."
    )


class _Sampling(Section):
    repeats: int = option(0, "Extra passes over the entry in one epoch.", ge=0)
    probability: float = option(1.0, "Weight of the entry when batches are drawn.", gt=0)
    train_batch_size: int | None = option(None, "Batch size of this entry.", ge=1)
    start_epoch: int | None = option(None, "First epoch it is used in.", ge=1)
    start_step: int | None = option(None, "First step it is used in.", ge=0)
    end_epoch: int | None = option(None, "Last epoch it is used in.", ge=1)
    end_step: int | None = option(None, "Last step it is used in.", ge=0)
    timestep_sampling_offset: float | None = option(None, "Shifts its timesteps.", accepted=True)
    is_regularisation_data: bool = option(
        False, "Trains an adapter towards what the untrained model answers.", aliases=["is_regularization_data"]
    )
    disable_validation: bool = option(False, "Leaves the entry out of validation.")
    slider_strength: float | None = option(None, "Strength of a slider's side.", accepted=True)


class _Links(Section):
    conditioning_data: str | list[str] | None = option(None, "Ids of the entries with its references.")
    conditioning_type: Literal["controlnet", "mask", "reference_strict", "reference_loose", "segmentation"] | None = (
        option(None, "What the references are.", built=["reference_strict", "reference_loose", "controlnet"])
    )
    conditioning: dict[str, Any] | list[dict[str, Any]] | None = option(None, "How references are made.", accepted=True)
    source_dataset_id: str | None = option(None, "The entry these references belong to.")
    text_embeds: str | None = option(None, "Id of the entry that keeps its text embeddings; empty: the default one.")
    image_embeds: str | None = option(None, "Id of the entry that keeps its latents.", accepted=True)
    conditioning_image_embeds: str | None = option(
        None, "Id of the entry that keeps its reference embeddings.", accepted=True
    )
    default: bool = option(False, "Takes every text that names no other entry (text_embeds).")
    video: VideoSettings | None = option(None, "How films are cut.")
    audio: dict[str, Any] | None = option(None, "How sound is cut.", accepted=True)
    s2v_datasets: str | list[str] | None = option(None, "Ids of the entries with its sound.", accepted=True)


class _Caching(Section):
    cache_dir_vae: Path | None = option(
        None, "Where its latents go; may contain {model_family} and {id}.", path="created"
    )
    cache_dir: Path | None = option(None, "Where a cache entry keeps its files.", path="created")
    cache_dir_conditioning_image_embeds: Path | None = option(
        None, "Where reference embeddings go.", path="created", accepted=True
    )
    cache_file_suffix: str | None = option(None, "Names cache files apart.", accepted=True)
    hash_filenames: bool = option(True, "Names cache files by hash; Flowtuner always does.")
    write_batch_size: int | None = option(None, "Rows written at once.", ge=1)
    text_encoder_batch_size: int | None = option(None, "Prompts encoded at once.", ge=1)
    vae_batch_size: int | None = option(None, "Pictures encoded at once.", ge=1, accepted=True)
    text_cache_ondemand: bool = option(False, "Encodes prompts when first needed.")
    text_cache_disable: bool = option(False, "Keeps no text embeddings.")
    vae_cache_ondemand: bool = option(False, "Encodes pictures when first needed.")
    vae_cache_disable: bool = option(False, "Keeps no latents.")
    vae_cache_clear_each_epoch: bool = option(False, "Encodes anew each epoch.")
    scan_for_errors: bool = option(False, "Looks for broken cache files; Flowtuner always does.")
    skip_file_discovery: str | bool | None = option(None, "Which scans to leave out.", accepted=True)
    preserve_data_backend_cache: bool = option(
        False, "Takes the files that were found last time for those that are there."
    )


class DatasetEntry(_Caching, _Links, _Sampling, _Sizes, _Captions, _Place):
    """One dataset, or one cache, of a run."""


ENTRY_GROUPS: dict[str, type[Section]] = {
    "Where it is": _Place,
    "Captions": _Captions,
    "Sizes and crops": _Sizes,
    "Sampling": _Sampling,
    "Links to other entries": _Links,
    "Caches": _Caching,
}
