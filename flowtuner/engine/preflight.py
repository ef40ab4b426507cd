"""Everything that can be known before the first step, found in seconds and without torch."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowtuner.engine import families
from flowtuner.engine.checkpoints import find_faults, list_checkpoints
from flowtuner.errors import ConfigError
from flowtuner.options import LoadedConfig, TrainingConfig

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MARGIN_BYTES = 256 << 20


@dataclass(frozen=True)
class Finding:
    """One thing a run would stumble over, and what to do about it."""

    level: Literal["error", "warning"]
    check: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.message}" + (f" {self.fix}" if self.fix else "")


def inspect_run(loaded: LoadedConfig) -> list[Finding]:
    """Looks at everything a run needs; errors mean that it must not start."""
    config = loaded.config
    findings = [
        *_inspect_model(config),
        *_inspect_output(config),
        *_inspect_resume(config),
    ]
    findings += [Finding("warning", "options", warning) for warning in loaded.warnings]
    return findings


def _inspect_model(config: TrainingConfig) -> Iterator[Finding]:
    try:
        family = families.open_family(config.model_family)
        source = families.choose_source(config)
    except ConfigError as error:
        yield from (Finding("error", fault.option, str(fault)) for fault in error.faults)
        return
    folder = Path(source).expanduser()
    if folder.is_dir():
        for fault in family.check_source(folder):
            yield Finding("error", "pretrained_model_name_or_path", f"{fault}.")
    elif folder.exists():
        yield Finding(
            "error",
            "pretrained_model_name_or_path",
            f"{source} is a file.",
            "Give a folder in diffusers layout (with model_index.json) or a Hub id such as owner/name.",
        )
    elif source.startswith(("/", ".", "~")) or not HUB_ID.fullmatch(source):
        yield Finding(
            "error",
            "pretrained_model_name_or_path",
            f"{source} does not exist and is not a Hub id.",
            "Give an existing folder in diffusers layout or a Hub id such as owner/name.",
        )


def _inspect_output(config: TrainingConfig) -> Iterator[Finding]:
    output = Path(config.output_dir)
    ground = next(path for path in (output, *output.parents) if path.exists())
    if not ground.is_dir():
        yield Finding("error", "output_dir", f"{ground} is a file.", "Choose a folder.")
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output, prefix=".probe"):
            pass
    except OSError as error:
        yield Finding("error", "output_dir", f"{output} cannot be written: {error.strerror}.", "Choose another folder.")
        return
    yield from _inspect_disk(config, output)


def _inspect_disk(config: TrainingConfig, output: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(output).free
    weights = _weights_bytes(config)
    # Weights, two optimizer moments in fp32, and one checkpoint more than are kept, since the new one is written first.
    one = weights * 3 if config.model_type == "full" else max(weights // 50, 1 << 20)
    needed = one * ((config.checkpoints_total_limit or 10) + 1) + MARGIN_BYTES
    if free < one + MARGIN_BYTES:
        yield Finding(
            "error",
            "disk",
            f"{output} has {_gib(free)} free; one checkpoint needs about {_gib(one)}.",
            "Free space or choose another output_dir.",
        )
    elif free < needed:
        yield Finding(
            "warning",
            "disk",
            f"{output} has {_gib(free)} free; {config.checkpoints_total_limit or 'all'} checkpoints may need "
            f"{_gib(needed)}.",
            "Lower checkpoints_total_limit or free space.",
        )


def _weights_bytes(config: TrainingConfig) -> int:
    source = Path(config.pretrained_model_name_or_path or "").expanduser()
    parts = [source / name for name in ("transformer", "unet")]
    return sum(file.stat().st_size for part in parts if part.is_dir() for file in part.glob("*.safetensors"))


def _inspect_resume(config: TrainingConfig) -> Iterator[Finding]:
    output, wanted = Path(config.output_dir), config.resume_from_checkpoint
    present = list_checkpoints(output)
    if not wanted and present:
        yield Finding(
            "error",
            "resume_from_checkpoint",
            f"a fresh start was asked for, but {output} already holds {present[-1].name}.",
            "Choose another output_dir, or --resume_from_checkpoint=latest to go on from it.",
        )
    if not wanted or wanted == "latest":
        return
    folder = next((path for path in (Path(wanted).expanduser(), output / wanted) if path.is_dir()), None)
    if folder is None:
        known = ", ".join(path.name for path in present) or "none"
        yield Finding(
            "error",
            "resume_from_checkpoint",
            f"{wanted} does not exist.",
            f"Checkpoints in {output}: {known}. `latest` takes the newest, or starts afresh if there is none.",
        )
        return
    for fault in find_faults(folder, hashes=False)[:3]:
        yield Finding("error", "resume_from_checkpoint", f"{wanted} is not whole: {fault}.", "Choose an older one.")


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 29 else f"{count / (1 << 20):.0f} MiB"
