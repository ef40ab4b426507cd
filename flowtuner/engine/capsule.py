"""A run's capsule: everything that decides its bytes, kept beside its log, so that it can be run again and compared."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flowtuner import __version__, durable
from flowtuner.errors import CheckpointError

if TYPE_CHECKING:
    from flowtuner.engine.data.sample import Scan
    from flowtuner.options import LoadedConfig

NAME = "capsule.json"
VERSION = 1
PACKAGES = (
    *("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy", "pillow"),
    *("torch-optimi", "prodigyopt", "schedulefree", "lycoris-lora", "optimum-quanto", "torchao", "bitsandbytes"),
)
WEIGHTS = ("*.safetensors", "pipeline/**/*.safetensors", "controlnet/**/*.safetensors")
# Where a run writes, whom it tells and where it goes on from do not decide what it computes.
NOT_ITS_NUMBERS = frozenset(
    {
        *("output_dir", "publishing_config", "webhook_config", "resume_from_checkpoint", "report_to", "logging_dir"),
        *("push_to_hub", "push_checkpoints_to_hub", "hub_model_id", "post_upload_script", "post_checkpoint_script"),
        *("tracker_run_name", "tracker_project_name"),
    }
)


@dataclass(frozen=True)
class DataSet:
    """What one data set held: how many samples, and a hash of all of them in their order."""

    samples: int
    digest: str


@dataclass(frozen=True)
class Capsule:
    """What a run was made of; `release` are the hashes of what it came to, once it has come to its end."""

    options: Mapping[str, Any]
    datasets: tuple[Mapping[str, Any], ...]
    seed: int
    data: Mapping[str, DataSet]
    model: Mapping[str, str]
    """Fingerprints of the model folder's parts, by their role; the caches' keys are made of the encoders'."""
    device: str
    threads: int
    steps: int = 0
    release: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    machine: str = ""
    flowtuner: str = ""
    commit: str | None = None
    version: int = VERSION

    @classmethod
    def of(cls, loaded: LoadedConfig, **facts: Any) -> Self:
        """The capsule of a run that begins here and now; nothing secret is in it."""
        shown = loaded.redacted()
        options = {name: value for name, value in shown["config"].items() if name not in NOT_ITS_NUMBERS}
        return cls(
            options={name: value for name, value in options.items() if value is not None},
            datasets=tuple(shown["datasets"]),
            packages=dict(_installed()),
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.machine()}",
            flowtuner=__version__,
            commit=_commit(),
            **facts,
        )

    def save(self, output_dir: Path) -> None:
        """Writes it beside the run's log."""
        durable.write_json(place_of(output_dir), asdict(self))

    def with_release(self, output_dir: Path, steps: int) -> Self:
        """The same with the hashes of the final weights in the output folder."""
        files = sorted({path for pattern in WEIGHTS for path in output_dir.glob(pattern)})
        hashes = {path.relative_to(output_dir).as_posix(): durable.sha256_of(path) for path in files}
        return replace(self, release=hashes, steps=steps)


def summarize(scan: Scan) -> dict[str, DataSet]:
    """What each data set of a scan holds."""
    digests: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for sample in scan.samples:
        name = sample.dataset_id
        digests.setdefault(name, hashlib.sha256()).update(sample.identity)
        counts[name] = counts.get(name, 0) + 1
    return {name: DataSet(counts[name], digest.hexdigest()) for name, digest in digests.items()}


def place_of(output_dir: Path) -> Path:
    """Where a run's capsule lies."""
    return output_dir / "logs" / NAME


def read_capsule(path: Path) -> Capsule:
    """Reads a run's capsule, given the file or the run's folder."""
    file = place_of(path) if path.is_dir() else path
    try:
        value = durable.read_json(file)
        if value.get("version") != VERSION:
            raise CheckpointError(f"{file} is of version {value.get('version')}; this Flowtuner reads {VERSION}.")
        data = {name: DataSet(**facts) for name, facts in value.pop("data").items()}
        return Capsule(**value | {"data": data, "datasets": tuple(value["datasets"])})
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is not there: give the output folder of a run, or its {NAME}.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read as a capsule: {error}") from error


def find_differences(old: Capsule, new: Capsule) -> Iterator[str]:
    """Says what of the surroundings is not as it was; each may change bytes."""
    for name in sorted({*old.packages, *new.packages}):
        before, now = old.packages.get(name, "absent"), new.packages.get(name, "absent")
        if before != now:
            yield f"{name} was {before}, now {now}"
    for name in ("python", "machine", "device", "threads", "flowtuner", "commit"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"{name} was {before}, now {now}"


def _installed() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _commit() -> str | None:
    """The commit of the source tree this runs from, if it runs from one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
