"""What may leave the machine: a checkpoint without its by-products, or the release by a list of allowed names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from flowtuner.publishing.manifest import MANIFEST_NAME
from flowtuner.publishing.secrets import has_secret_name

RELEASE_FOLDERS = ("pipeline", "controlnet", "ema", "assets")
RELEASE_FILES = (
    "pytorch_lora_weights.safetensors",
    "ema_model.safetensors",
    "lycoris_config.json",
    "model_index.json",
    "simpletuner_config.json",
    "README.md",
)
CHECKPOINTS = "checkpoint-"
NEVER_FOLDERS = frozenset({"cache", "logs", "wandb", "__pycache__"})
NEVER_SUFFIXES = ("-tmp", ".tmp", ".part", ".log", ".pyc")


def list_checkpoint_files(folder: Path) -> list[str]:
    """The publishable files of a checkpoint folder, as sorted POSIX paths."""
    return sorted(walk(folder, folder))


def list_release_files(output_dir: Path, release: Path | None = None) -> list[str]:
    """The files of a run's release within its output folder: allowed names only, never what lies beside them."""
    roots = [output_dir / name for name in RELEASE_FOLDERS]
    if release is not None and release != output_dir and release.is_relative_to(output_dir):
        roots.append(release)
    found = {name for name in RELEASE_FILES if is_publishable(output_dir / name, output_dir)}
    for root in roots:
        found |= set(walk(root, output_dir))
    return sorted(found)


def list_all_files(output_dir: Path) -> list[str]:
    """Everything in an output folder, logs and caches too, but no checkpoint, hidden or unfinished file."""
    found = (path for path in _files_below(output_dir) if _lies_inside(path, output_dir))
    inside = (path.relative_to(output_dir).as_posix() for path in found)
    return sorted(path for path in inside if _may_come_along(path))


def is_by_product(path: str) -> bool:
    """Whether a path is a cache, a log, a hidden or an unfinished file: nothing that is ever published."""
    return any(
        part.startswith(".") or part in NEVER_FOLDERS or part.endswith(NEVER_SUFFIXES)
        for part in PurePosixPath(path).parts
    )


def walk(root: Path, base: Path) -> Iterator[str]:
    """The publishable files below a folder, as POSIX paths from `base`."""
    for path in _files_below(root):
        if is_publishable(path, base):
            yield path.relative_to(base).as_posix()


def is_publishable(path: Path, base: Path) -> bool:
    """Whether a path is a file that may leave the machine: in the folder itself, no by-product, no credentials."""
    if not _lies_inside(path, base):
        return False
    inside = path.relative_to(base).as_posix()
    return inside != MANIFEST_NAME and not is_by_product(inside) and not has_secret_name(inside)


def _files_below(root: Path) -> Iterator[Path]:
    # Uploads that end take their hidden folders away meanwhile; what is hidden is looked into by nobody.
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder) / name for name in files)


def _lies_inside(path: Path, base: Path) -> bool:
    # A link may point at anything on this machine; only what lies in the folder itself may leave it.
    return path.is_file() and path.resolve().is_relative_to(base.resolve())


def _may_come_along(path: str) -> bool:
    if path == MANIFEST_NAME or path.startswith(CHECKPOINTS) or has_secret_name(path):
        return False
    parts = PurePosixPath(path).parts
    return not any(part.startswith(".") or part.endswith(("-tmp", ".tmp", ".part", ".pyc")) for part in parts)
