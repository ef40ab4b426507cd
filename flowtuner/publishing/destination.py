"""The interface of a destination, and what it answers; `blocks/<provider>.py` implements it, one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from flowtuner.errors import Fault
from flowtuner.publishing.manifest import Kind, Manifest
from flowtuner.publishing.snapshot import Snapshot

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all; what it raises ends the upload."""


@dataclass(frozen=True)
class PublishResult:
    """What a destination holds now; `sent_bytes` is what had to travel for it."""

    destination: str
    provider: str
    name: str
    step: int
    uri: str | None
    verified: bool
    files: int
    bytes: int
    sent_files: int
    sent_bytes: int
    manifest_sha256: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a person should know although all went well."""


@dataclass(frozen=True)
class Place:
    """What a URI names at a destination: a run, and one of its checkpoints or, without a name, the newest of them."""

    run: str
    name: str | None = None


class Destination(Protocol):
    """A place that keeps checkpoints and releases; every method raises PublishError or DestinationDown."""

    provider: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]]
    name: str
    required: bool
    queue: str
    """Which checkpoints are sent after newer ones have been saved: `kept`, `newest` or `all`."""

    @property
    def local_folder(self) -> Path | None:
        """The folder of this machine that it writes to, None for a service elsewhere."""

    @classmethod
    def check_entry(cls, entry: Mapping[str, Any], origin: str) -> list[Fault]:
        """Finds mistakes in an entry of `publishing_config` without asking anybody."""

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any], origin: str) -> Self:
        """Makes a destination from an entry, looking up the stored block it may name; raises ConfigError."""

    @classmethod
    def keep_credentials(cls, entry: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Stores an entry's credentials in a block, and answers with the entry that names it instead of them."""

    @classmethod
    def store(cls, entry: Mapping[str, Any], block: str, origin: str) -> None:
        """Keeps an entry as a block of this name, in place of one that has it; raises ConfigError."""

    @classmethod
    def stored(cls) -> list[Self]:
        """The destinations of this kind that are kept as blocks; Prefect's API must be within reach."""

    def probe(self, output_dir: Path | None = None) -> None:
        """Proves write access by putting, reading and deleting a small file."""

    def check_room(self, bytes: int) -> None:
        """Raises PublishError when that much cannot fit, where that can be known."""

    def cautions(self) -> list[str]:
        """Says what may go wrong later although everything works now."""

    def wants(self, kind: Kind) -> bool:
        """Whether this destination keeps units of this kind."""

    def publish(self, snapshot: Snapshot, on_progress: Progress, keep: int = 0) -> PublishResult:
        """Uploads what is not there yet and reads it back, the manifest last; of the run's checkpoints `keep` stay."""

    def verify(self, manifest: Manifest, *, deep: bool = False) -> list[str]:
        """Says what is missing or wrong of a published unit; `deep` reads every byte."""

    def clear_damage(self, manifest: Manifest) -> list[str]:
        """Reads every byte of a unit, removes what is wrong, for publishing to bring again, and says what it was."""

    def prune(self, run: str, keep: int, newest: str) -> list[str]:
        """Removes the run's oldest checkpoints beyond `keep` (0 keeps all) and names them; `newest` always stays."""

    def uri_of(self, manifest: Manifest) -> str | None:
        """Where people find a published unit."""

    @classmethod
    def entry_of_uri(cls, uri: str) -> dict[str, Any] | None:
        """An entry without credentials whose destination can follow a URI; None if the URI is of another kind."""

    def follow(self, uri: str) -> tuple[Self, Place] | None:
        """This destination, at the base path that a URI means, and what is named there; None if it leads elsewhere."""

    def units(self, run: str) -> list[Manifest]:
        """The manifests of what stands there of a run, each unit whole; the newest comes last."""

    def fetch(self, manifest: Manifest, target: Path, on_progress: Progress) -> None:
        """Brings a unit to a folder that is whole or not there; what an interrupted attempt has brought stays."""
