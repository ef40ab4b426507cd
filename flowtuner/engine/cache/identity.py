"""What decides the keys of a run's caches, kept beside them so that they can be explained without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flowtuner import durable
from flowtuner.engine.cache.explain import CacheIdentity
from flowtuner.engine.cache.keys import fingerprint
from flowtuner.engine.cache.places import index_root, latent_root, text_root
from flowtuner.engine.data.settings import CONTROLNET_TYPE, picture_entries, reference_entries
from flowtuner.engine.formats import find_text_precision
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry, LoadedConfig, TrainingConfig

FILE = "identity.json"
NUMBERED = ("text_encoder_2", "text_encoder_3", "text_encoder_4")


def describe_identity(
    config: TrainingConfig,
    entries: Sequence[DatasetEntry],
    source: Path,
    dtype: str,
    max_tokens: int,
    replaced: Mapping[str, Path],
) -> CacheIdentity:
    """Fingerprints the encoders of a model folder, or what stands in for them, and says where their caches are."""
    index = index_root(config)
    own = sorted(path for name in ("text_encoder*", "tokenizer*") for path in source.glob(name) if path.is_dir())
    text_parts = [replaced.get(path.name, path) for path in own]
    skipped = f" without {config.clip_skip} layers" if config.clip_skip else ""
    formats = {name: find_text_precision(config, name) for name in ("text_encoder", *NUMBERED)}
    stored = "".join(f" {name} in {one}" for name, one in formats.items() if one != "no_change")
    return CacheIdentity(
        latent_roots={
            entry.id: latent_root(entry, config) for entry in (*picture_entries(entries), *reference_entries(entries))
        },
        text_root=text_root(entries, config),
        vae=fingerprint(replaced.get("vae", source / "vae"), index_dir=index),
        vae_dtype=dtype,
        encoder=fingerprint(*text_parts, index_dir=index) + skipped + stored,
        text_dtype=dtype,
        max_tokens=max_tokens,
        as_pixels=frozenset(
            entry.id for entry in reference_entries(entries) if entry.conditioning_type == CONTROLNET_TYPE
        ),
    )


def save_identity(config: TrainingConfig, source: Path, identity: CacheIdentity, replaced: Mapping[str, Path]) -> None:
    """Notes with which model and number format the caches were filled last."""
    note = {
        "source": str(source),
        "dtype": identity.vae_dtype,
        "max_tokens": identity.max_tokens,
        "replaced": {name: str(path) for name, path in replaced.items()},
    }
    durable.write_json(index_root(config) / FILE, note)


def recall_identity(loaded: LoadedConfig) -> CacheIdentity:
    """The identity as the next run would have it: number format as noted, weights as they are now."""
    path = index_root(loaded.config) / FILE
    try:
        note = durable.read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{loaded.config.output_dir} has no caches yet: run `flowtuner cache` first.") from error
    source = Path(loaded.config.pretrained_model_name_or_path or note["source"]).expanduser()
    folder = source if source.is_dir() else Path(note["source"])
    replaced = {name: Path(path) for name, path in note.get("replaced", {}).items()}
    return describe_identity(loaded.config, loaded.datasets, folder, note["dtype"], note["max_tokens"], replaced)
