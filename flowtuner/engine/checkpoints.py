"""Checkpoints: complete folders that appear in one rename, prove themselves by a manifest, and rotate."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowtuner import durable
from flowtuner.errors import CheckpointError
from flowtuner.options import TrainingConfig
from flowtuner.options.lycoris import settings_of

MANIFEST = "checkpoint_manifest.json"
STATE = "training_state.json"
IDENTITY = ("model_family", "model_type", "controlnet", "optimizer", "train_batch_size", "gradient_accumulation_steps")
LORA_IDENTITY = ("lora_type", "lora_rank", "lora_alpha", "use_dora")
# What a checkpoint brings along, whatever the options of the resumed run say.
OVERRULED = ("seed", "optimizer_config", "optimizer_beta1", "optimizer_beta2")
# What may differ between a run and its continuation, but hardly ever does on purpose.
NOTED = ("pretrained_model_name_or_path", "model_flavour", "lora_target_modules", *OVERRULED)
MARGIN_BYTES = 256 << 20
NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class SavedState:
    """The small facts of a checkpoint: where training stood and what it must not be mixed with."""

    global_step: int
    micro_batches: int
    epoch: int
    seed: int
    identity: Mapping[str, Any]
    data_set: str
    noted: Mapping[str, Any] = field(default_factory=dict)


def folder_of(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lives."""
    return output_dir / f"checkpoint-{step}"


def write_checkpoint(
    folder: Path, state: SavedState, write_parts: Callable[[Path], None], about: dict[str, Any]
) -> Callable[[], None]:
    """Writes all parts beside the target; the answer seals them with a manifest and renames the folder into place."""
    with contextlib.ExitStack() as stack:
        part = stack.enter_context(durable.atomic_folder(folder))
        write_parts(part)
        unsealed = stack.pop_all()

    def seal() -> None:
        with unsealed:
            durable.write_json(part / STATE, vars(state))
            files = durable.record_files(part)
            manifest = {"version": 1, "checkpoint": folder.name, "files": files, "metadata": about}
            durable.write_json(part / MANIFEST, manifest)

    return seal


def read_state(folder: Path) -> SavedState:
    """Reads where a checkpoint's training stood."""
    try:
        return SavedState(**durable.read_json(folder / STATE))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder.name}: {STATE} cannot be read: {error}") from error


def find_faults(folder: Path, *, hashes: bool = True) -> list[str]:
    """Says why a checkpoint cannot be trusted; an empty list means it is whole, byte for byte."""
    try:
        manifest = durable.read_json(folder / MANIFEST)
        records = [durable.FileRecord(**record) for record in manifest["files"]]
    except FileNotFoundError:
        return [f"{MANIFEST} is missing: the checkpoint was never completed"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [f"{MANIFEST} cannot be read: {error}"]
    return durable.find_damage(folder, records, hashes=hashes)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    found = [(int(match[1]), path) for path in output_dir.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if path.is_dir()]


def find_resume_point(
    output_dir: Path, wanted: str | None, warn: Callable[[str], None], *, hashes: bool = True
) -> Path | None:
    """The checkpoint to go on from: the newest whole one for `latest`, the named one, or none for a fresh start."""
    if not wanted:
        return None
    if wanted != "latest":
        return _named_checkpoint(output_dir, wanted, hashes)
    for folder in reversed(list_checkpoints(output_dir)):
        faults = find_faults(folder, hashes=hashes)
        if not faults:
            return folder
        warn(f"{folder.name} is not used: {'; '.join(faults[:3])}. Going back to the one before it.")
    if list_checkpoints(output_dir):
        warn(f"no checkpoint in {output_dir} is whole: training starts from the beginning.")
    return None


def find_newest(output_dir: Path) -> Path | None:
    """The newest checkpoint of a folder that is whole, to judge by names and sizes."""
    return find_resume_point(output_dir, "latest", lambda warning: None, hashes=False)


def is_address(wanted: str | None) -> bool:
    """Whether a checkpoint is named by a URI, so that it has to be brought here first."""
    return wanted is not None and "://" in wanted


def identity_of(config: TrainingConfig, processes: int = 1) -> dict[str, Any]:
    """The options that a resumed run must have in common with the one that saved; processes share one batch."""
    identity = {name: getattr(config, name) for name in IDENTITY}
    identity["train_batch_size"] *= processes
    if config.model_type == "lora":
        identity |= {name: getattr(config, name) for name in LORA_IDENTITY}
        identity["lora_alpha"] = config.lora_rank if config.lora_alpha is None else config.lora_alpha
        if config.lora_type == "lycoris":
            identity["lycoris_config"] = settings_of(config.lycoris_config)
    return identity


def check_identity(saved: SavedState, present: Mapping[str, Any], folder: Path) -> None:
    """Refuses a checkpoint made by a run that this configuration does not continue."""
    changed = [
        f"{name} was {saved.identity[name]!r}, now {value!r}"
        for name, value in present.items()
        if name in saved.identity and saved.identity[name] != value
    ]
    if changed:
        raise CheckpointError(
            f"{folder.name} belongs to another training: {'; '.join(changed)}. Put these options back, "
            "choose another output_dir, or start afresh with --resume_from_checkpoint=none in an empty one."
        )


def note_options(config: TrainingConfig) -> dict[str, Any]:
    """The options whose change a resumed run should hear about."""
    return {name: plain_value(getattr(config, name)) for name in NOTED}


def list_changes(saved: SavedState, present: Mapping[str, Any]) -> list[str]:
    """Says which of the noted options are not what they were when the checkpoint was saved."""
    return [
        f"{name} was {saved.noted[name]!r}, now {value!r}{'; the old one stays in force' if name in OVERRULED else ''}"
        for name, value in present.items()
        if name in saved.noted and saved.noted[name] != value
    ]


def plain_value(value: Any) -> Any:
    """A value as JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(name): plain_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def set_aside_newer(output_dir: Path, step: int) -> list[Path]:
    """Renames the checkpoints beyond `step`: they belong to a course of training that is not continued."""
    # Left where they are, the next resume would take one of them, and rotation would keep them over newer work.
    aside = []
    for folder in list_checkpoints(output_dir):
        if _step_of(folder) > step:
            aside.append(folder.rename(_free_name(folder.with_name(f"{folder.name}-superseded"))))
    return aside


def make_way(folder: Path, records: Sequence[durable.FileRecord]) -> None:
    """Sets a whole checkpoint aside when another one of the same step is to take its place."""
    if folder.is_dir() and not find_faults(folder, hashes=False) and durable.find_damage(folder, records):
        folder.rename(_free_name(folder.with_name(f"{folder.name}-superseded")))


def rotate(output_dir: Path, keep: int, newest: Path, held: Collection[str] = ()) -> list[Path]:
    """Removes the oldest checkpoints beyond `keep` (0 keeps all); the newest one and those that are held stay."""
    if keep <= 0:
        return []
    surplus = [path for path in list_checkpoints(output_dir)[:-keep] if path != newest and path.name not in held]
    for path in surplus:
        # Renamed first, so that a kill in the middle leaves no folder that looks like a checkpoint but is not whole.
        doomed = path.with_name(f"{path.name}-tmp")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed)
    return surplus


def has_room_for_more(folder: Path) -> bool:
    """Whether two more checkpoints of this size fit on the disk: the next one, and the one after while that is sent."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return shutil.disk_usage(folder).free > 2 * size + MARGIN_BYTES


def remove_leftovers(output_dir: Path) -> None:
    """Clears what a killed save or rotation left behind; a checkpoint caught while being replaced comes back."""
    for old in output_dir.glob("checkpoint-*-old-tmp"):
        durable.restore_replaced(old)
    for path in output_dir.glob("checkpoint-*-tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _free_name(path: Path) -> Path:
    taken = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], taken) if not name.exists())


def _named_checkpoint(output_dir: Path, wanted: str, hashes: bool) -> Path:
    candidates = [Path(wanted).expanduser(), output_dir / wanted]
    folder = next((path for path in candidates if path.is_dir()), None)
    if folder and not (folder / MANIFEST).is_file() and (whole := find_newest(folder)):
        return whole  # a run's folder, or a copy of one
    if folder is None:
        known = ", ".join(path.name for path in list_checkpoints(output_dir)) or "none"
        raise CheckpointError(
            f"resume_from_checkpoint={wanted}: there is no such folder. Checkpoints in {output_dir}: {known}. "
            "Use one of them, `latest`, or leave the option out."
        )
    faults = find_faults(folder, hashes=hashes)
    if faults:
        raise CheckpointError(f"resume_from_checkpoint={wanted}: the checkpoint is not whole: {'; '.join(faults[:5])}")
    return folder
