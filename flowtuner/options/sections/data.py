"""Options about data: where it is described, how pictures are measured, captioned, sampled and cached."""

from pathlib import Path
from typing import Literal

from flowtuner.options.fields import Section, option

CaptionStrategy = Literal[
    "filename", "textfile", "parquet", "instanceprompt", "csv", "jsonl", "huggingface", "webshart"
]
CAPTIONS_BUILT = ["filename", "textfile", "parquet", "instanceprompt", "csv", "jsonl", "huggingface"]
ResolutionType = Literal["pixel", "area", "pixel_area"]


class DataOptions(Section):
    """What a dataset entry does not say for itself, and how data is fed."""

    data_backend_config: Path | None = option(
        None, "The dataloader file: a list of dataset entries.", path="existing", env=["DATALOADER_CONFIG"]
    )
    resolution: float = option(1024, "Size of the pictures, in the unit of resolution_type.", gt=0, env=["RESOLUTION"])
    resolution_type: ResolutionType = option(
        "pixel_area",
        "`pixel`: length of the short edge; `area`: megapixels; `pixel_area`: edge of a square of the same area.",
        env=["RESOLUTION_TYPE"],
    )
    minimum_image_size: float | None = option(
        None, "Smaller pictures are left out; 0: none.", ge=0, env=["MINIMUM_RESOLUTION"]
    )
    maximum_image_size: float | None = option(None, "Larger pictures are reduced before cropping; 0: none.", ge=0)
    target_downsample_size: float | None = option(None, "Size that larger pictures are reduced to.", ge=0)
    max_upscale_threshold: float | None = option(None, "Largest share by which a picture may be enlarged.", gt=0)
    aspect_bucket_alignment: Literal[8, 16, 24, 32, 64] = option(64, "Edges are multiples of this many pixels.")
    aspect_bucket_rounding: int = option(
        2, "Decimals of an aspect ratio that tell buckets apart.", ge=1, le=9, env=["ASPECT_BUCKET_ROUNDING"]
    )
    aspect_bucket_disable_rebuild: bool = option(False, "Does not shuffle buckets anew each epoch.", accepted=True)
    disable_bucket_pruning: bool = option(False, "Keeps buckets that are smaller than a batch.")
    allow_dataset_oversubscription: bool = option(False, "Repeats small buckets until they fill a batch.")
    caption_strategy: CaptionStrategy = option(
        "filename", "Where captions come from.", values={"instance_prompt": "instanceprompt"}, built=CAPTIONS_BUILT
    )
    instance_prompt: str | list[str] | None = option(None, "A caption for every picture; a list takes turns.")
    prepend_instance_prompt: bool = option(False, "Puts the instance prompt in front of the caption.")
    only_instance_prompt: bool = option(False, "Uses the instance prompt in place of captions.")
    ignore_missing_files: bool = option(False, "A missing caption file leaves its picture out instead of stopping.")
    disable_multiline_split: bool = option(False, "A caption file with several lines is one caption.")
    parquet_caption_column: str | None = option(None, "Column of captions, for tables that do not say.")
    parquet_filename_column: str | None = option(None, "Column of file names, likewise.")
    caption_dropout_probability: float = option(
        0.1, "Share of captions replaced by an empty one.", ge=0, le=1, env=["CAPTION_DROPOUT_PROBABILITY"]
    )
    conditioning_multidataset_sampling: Literal["combined", "random"] = option(
        "random", "All references of a picture, or one at random."
    )
    data_backend_sampling: Literal["uniform", "auto-weighting"] = option(
        "auto-weighting", "`auto-weighting`: by size times probability; `uniform`: by probability alone."
    )
    cache_dir: Path | None = option(None, "Where caches go; empty: `cache` in output_dir.", path="created")
    cache_dir_vae: Path | None = option(
        None, "Where latents go, for datasets that do not say; may contain {model_family} and {id}.", path="created"
    )
    cache_dir_text: Path | None = option(None, "Where text embeddings go, likewise.", path="created")
    vae_batch_size: int = option(4, "Pictures encoded at once.", ge=1)
    vae_cache_ondemand: bool = option(
        False, "Encodes pictures when they are first needed.", negated=["vae_cache_preprocess"]
    )
    vae_cache_disable: bool = option(False, "Keeps no latents on disk.")
    vae_cache_scan_behaviour: Literal["recreate", "sync"] = option(
        "recreate", "What a stale latent leads to.", accepted=True
    )
    text_encoder_batch_size: int = option(4, "Prompts encoded at once.", ge=1, env=["TEXT_ENCODER_BATCH_SIZE"])
    text_cache_ondemand: bool = option(
        False, "Encodes prompts when they are first needed.", env=["TEXT_CACHE_ONDEMAND"]
    )
    text_cache_disable: bool = option(False, "Keeps no text embeddings on disk.", env=["TEXT_CACHE_DISABLE"])
    write_batch_size: int = option(128, "Rows written to a cache at once.", ge=1, env=["WRITE_BATCH_SIZE"])
    read_batch_size: int = option(25, "Files read at once.", ge=1, accepted=True, env=["READ_BATCH_SIZE"])
    image_processing_batch_size: int = option(
        32, "Pictures prepared at once.", ge=1, accepted=True, env=["IMAGE_PROCESSING_BATCH_SIZE"]
    )
    compress_disk_cache: bool = option(False, "Compresses caches.", accepted=True)
    preserve_data_backend_cache: bool = option(
        False, "Takes the files that were found last time for those that are there."
    )
    override_dataset_config: bool = option(False, "Goes on although a dataset's settings changed.", accepted=True)
    skip_file_discovery: str | None = option(None, "Which scans to leave out.", accepted=True)
    delete_problematic_images: bool = option(
        False, "Deletes unreadable pictures; Flowtuner only sets them aside.", accepted=True
    )
    delete_unwanted_images: bool = option(
        False, "Deletes pictures that are too small; Flowtuner only leaves them out.", accepted=True
    )
    metadata_update_interval: int = option(
        3600, "Seconds between writes of the file index.", ge=60, accepted=True, env=["METADATA_UPDATE_INTERVAL"]
    )
    dataloader_prefetch: bool = option(False, "Prepares batches ahead in a thread.")
    dataloader_prefetch_qlen: int = option(10, "Batches prepared ahead.", ge=1)
    enable_multiprocessing: bool = option(False, "Scans with processes instead of threads.", accepted=True)
    max_workers: int = option(32, "Threads that read and write files.", ge=1, accepted=True)
    aspect_bucket_worker_count: int = option(12, "Threads that measure pictures.", ge=1, accepted=True)
    aws_max_pool_connections: int = option(128, "Connections to S3.", ge=1, env=["AWS_MAX_POOL_CONNECTIONS"])
    data_aesthetic_score: float = option(7.0, "Aesthetic score given to every picture (SDXL refiner).", accepted=True)
    masked_loss_probability: float = option(1.0, "Share of steps with a masked loss.", ge=0, le=1, accepted=True)
