"""Whether what a run writes here outlives the machine: read from the folder's file system and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["durable", "unknown", "ephemeral"]
Wanted = Literal["auto", "yes", "no"]

# How often a run on such a machine saves if nobody said how often: by time, or by share of the run.
PACE_S = 600.0
PACE_SHARE = 0.05

MOUNTS = Path("/proc/self/mountinfo")
VANISHING = frozenset({"overlay", "overlayfs", "aufs", "tmpfs", "ramfs", "fuse.fuse-overlayfs"})
# Kubernetes keeps this volume as long as the pod; in the list of mounts it looks like any other folder of the node.
EMPTY_DIR = "kubernetes.io~empty-dir"
OCTAL = re.compile(r"\\([0-7]{3})")

# Machines that are thrown away when their job ends, by a variable that each of them sets; a trailing `*` is a prefix.
MACHINES: tuple[tuple[str, str], ...] = (
    ("SPACE_ID", "a Hugging Face Space"),
    ("KUBERNETES_SERVICE_HOST", "a Kubernetes pod"),
    ("COLAB_*", "Google Colab"),
    ("KAGGLE_KERNEL_RUN_TYPE", "a Kaggle notebook"),
    ("MODAL_TASK_ID", "a Modal container"),
    ("RUNPOD_POD_ID", "a RunPod pod"),
    ("AWS_BATCH_JOB_ID", "an AWS Batch job"),
    ("ECS_CONTAINER_METADATA_URI*", "an Amazon ECS task"),
    ("SM_TRAINING_ENV", "a SageMaker training job"),
    ("CLOUD_RUN_JOB", "a Cloud Run job"),
    ("GITHUB_ACTIONS", "a GitHub Actions runner"),
)
# Grid Engine sets JOB_ID too; these tell a job of the Hub from one of a cluster.
HUB_JOB = ("HF_ENDPOINT", "ACCELERATOR", "CPU_CORES")
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True)
class Ephemerality:
    """Whether an output folder outlives its machine, and what says so."""

    level: Level
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join(self.reasons)


@dataclass(frozen=True)
class Mount:
    """What is mounted where a folder lies."""

    point: str
    root: str
    kind: str

    @property
    def vanishes(self) -> bool:
        """Whether it goes with its container or at the next restart."""
        return self.kind in VANISHING or EMPTY_DIR in self.root

    def __str__(self) -> str:
        kind = f"an emptyDir volume ({self.kind})" if EMPTY_DIR in self.root else self.kind
        return f"{kind} mounted at {self.point}"


def judge(
    output_dir: Path,
    wanted: Wanted = "auto",
    environ: Mapping[str, str] = os.environ,
    mounts: str | None = None,
    exists: Callable[[str], bool] = os.path.exists,
) -> Ephemerality:
    """Judges an output folder: an answer that was given counts, then the file system, then the environment."""
    if wanted != "auto":
        return Ephemerality("ephemeral" if wanted == "yes" else "durable", (f"ephemeral={wanted} says so",))
    place = output_dir.expanduser().resolve()
    mount = find_mount(place, _read_mounts() if mounts is None else mounts)
    if mount and mount.vanishes:
        return Ephemerality("ephemeral", (f"{place} lies on {mount}", *_machines(environ)))
    if mount and mount.point != "/":
        # A volume that somebody mounted outlives the container around it.
        return Ephemerality("durable", (f"{place} lies on {mount}",))
    if machines := _machines(environ):
        return Ephemerality("ephemeral", machines)
    if marks := _marks(environ, exists):
        return Ephemerality("unknown", marks)
    return Ephemerality("durable", ("nothing here says that this machine will be thrown away",))


def lies_apart(folder: Path, output_dir: Path, mounts: str | None = None) -> bool:
    """Whether a folder lies on another file system than an output folder that vanishes, and on one that stays."""
    text = _read_mounts() if mounts is None else mounts
    theirs, ours = (find_mount(place.expanduser().resolve(), text) for place in (folder, output_dir))
    return theirs is not None and theirs != ours and not theirs.vanishes


def find_mount(place: Path, mounts: str) -> Mount | None:
    """The mount that a path lies on, from the text of /proc/self/mountinfo; None where there is none to read."""
    found: Mount | None = None
    for line in mounts.splitlines():
        mount = _parse(line)
        # Of two at the same point the later one hides the earlier.
        if mount and place.is_relative_to(mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def _parse(line: str) -> Mount | None:
    mine, _, theirs = line.partition(" - ")
    fields, kind = mine.split(), theirs.split()
    if len(fields) < 5 or not kind:
        return None
    return Mount(_unescape(fields[4]), _unescape(fields[3]), kind[0])


def _unescape(text: str) -> str:
    return OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _read_mounts() -> str:
    try:
        return MOUNTS.read_text(errors="replace")
    except OSError:  # not Linux
        return ""


def _machines(environ: Mapping[str, str]) -> tuple[str, ...]:
    found = [f"{name.rstrip('*')} is set: this is {what}" for name, what in MACHINES if _is_set(name, environ)]
    if environ.get("JOB_ID") and any(environ.get(name) for name in HUB_JOB):
        found.insert(0, "JOB_ID is set: this is a Hugging Face job")
    return tuple(found)


def _is_set(name: str, environ: Mapping[str, str]) -> bool:
    if name.endswith("*"):
        return any(value and key.startswith(name[:-1]) for key, value in environ.items())
    return bool(environ.get(name))


def _marks(environ: Mapping[str, str], exists: Callable[[str], bool]) -> tuple[str, ...]:
    found = [f"{mark} exists: this may be a container" for mark in CONTAINER_MARKS if exists(mark)]
    if environ.get("JOB_ID"):
        found.append("JOB_ID is set: this may be a job on a machine that is thrown away")
    return tuple(found)
