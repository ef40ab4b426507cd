"""What destinations have in common that keep files under keys: settings, stored blocks, and the order of the writes."""

from __future__ import annotations

import contextlib
import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote
from uuid import uuid4

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import BlockType
from prefect.exceptions import PrefectException
from pydantic import Field, SecretStr, ValidationError, field_validator

from blocks.parts.logo import draw_logo
from flowtuner.errors import ConfigError, DestinationDown, Fault, PublishError
from flowtuner.publishing.addresses import place_below
from flowtuner.publishing.destination import Place, Progress, PublishResult
from flowtuner.publishing.entries import check_keys, check_spellings, faults_of
from flowtuner.publishing.fetch import fetch_unit
from flowtuner.publishing.manifest import Kind, Manifest
from flowtuner.publishing.snapshot import Snapshot
from flowtuner.publishing.transfer import Store, clear_damage, find_remote_damage, list_units, remove_surplus, send

LOGO_COLOUR = (58, 110, 165)
BLOCK_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class KeptDestination(Block):
    """A destination that keeps files under keys; what is its own is the store, and how its errors are told."""

    _logo_url = draw_logo(LOGO_COLOUR)  # type: ignore[assignment]
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"  # type: ignore[assignment]

    provider: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    spellings: ClassVar[Mapping[str, str]] = {}
    """Other names of keys, as they stand in entries written for other programs."""
    secret_keys: ClassVar[frozenset[str]] = frozenset()
    """The keys whose values nobody may see; they live in stored blocks."""

    base_path: str = Field("", description="Folder or prefix there that holds this project's runs.")
    name: str = Field("", description="What reports call this destination; by default its provider and place.")
    public_base_url: str | None = Field(None, description="URL under which base_path's parent is served, for links.")
    required: bool = Field(True, description="Whether a run fails when this destination does not hold its results.")
    include: list[str] = Field(default_factory=list, description="Only files that match one of these patterns.")
    exclude: list[str] = Field(default_factory=list, description="No file that matches one of these patterns.")

    content: Literal["model", "output_dir"] = Field(
        "model",
        description="What is published besides the checkpoints: the model, or all of output_dir, logs, pictures and "
        "caches too.",
    )

    queue: str = Field(
        "kept",
        pattern="^(kept|newest|all)$",
        description="Which checkpoints are sent when training is faster than the upload: those that "
        "checkpoints_total_limit keeps, the newest alone, or all.",
    )

    @field_validator("base_path")
    @classmethod
    def _stay_inside(cls, value: str) -> str:
        parts = PurePosixPath(value.strip(" /")).parts
        if ".." in parts:
            raise ValueError("'..' would leave the destination's path")
        return "/".join(parts)

    @abstractmethod
    def _open_store(self, manifest: Manifest | None = None) -> Store:
        """The files below the base path; the manifest is that of the unit to be written."""

    def _open_probe_store(self) -> Store:
        return self._open_store()

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Turns what the storage raises into PublishError and DestinationDown."""

    @abstractmethod
    def _base_uri(self) -> str:
        """The percent-encoded URI of the base path's parent."""

    def _other_uris(self) -> Iterable[str]:
        """More URIs of the same place, under which people may name what stands there."""
        return ()

    @classmethod
    def _to_block_type(cls) -> BlockType:
        # The client refuses the picture's address for a logo, which may be on the web only.
        return BlockType(
            id=cls._block_type_id or uuid4(),
            slug=cls.get_block_type_slug(),
            name=cls.get_block_type_name(),
            documentation_url=cls._documentation_url,
            description=cls.get_description(),
            code_example=cls.get_code_example(),
        )

    @classmethod
    def check_entry(cls, entry: Mapping[str, Any], origin: str) -> list[Fault]:
        """Finds mistakes in an entry of `publishing_config` without asking anybody."""
        settings, faults = cls._settings_of(entry, origin)
        if faults or "block" in entry:
            return faults
        try:
            cls(**settings)
        except ValidationError as error:
            return faults_of(error, origin, cls.secret_keys)
        return []

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any], origin: str) -> Self:
        """Makes the destination from an entry, or from the stored block it names with the entry's own keys on top."""
        settings, faults = cls._settings_of(entry, origin)
        if not faults and entry.get("block"):
            settings = cls._stored_settings(str(entry["block"]), origin) | settings
        if faults:
            raise ConfigError(faults)
        try:
            return cls(**settings)
        except ValidationError as error:
            # The chain is cut: what pydantic says shows the values that were given.
            raise ConfigError(faults_of(error, origin, cls.secret_keys)) from None

    @classmethod
    def keep_credentials(cls, entry: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Saves an entry that holds credentials as a block, and answers with the entry that names it instead."""
        settings, _ = cls._settings_of(entry, origin)
        if not any(settings.get(key) for key in cls.secret_keys):
            return dict(entry)
        destination = cls.from_entry(entry, origin)
        block = destination._block_name()
        destination._save_as(block)
        shown = {key: value for key, value in settings.items() if key not in cls.secret_keys}
        return {"provider": cls.provider, "block": block, "name": destination.name} | shown

    @classmethod
    def _settings_of(cls, entry: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], list[Fault]]:
        respelled, faults = check_spellings(entry, cls.spellings, origin)
        settings, unknown = check_keys(respelled, set(cls.model_fields), origin)
        return settings, faults + unknown

    @classmethod
    def _stored_settings(cls, block: str, origin: str) -> dict[str, Any]:
        try:
            stored = cls.load(block, _sync=True)  # type: ignore[call-arg]
        except ValueError as error:
            hint = f"save a {cls._block_type_name} block of this name"
            raise ConfigError([Fault("block", block, origin, "no such block is stored", suggestion=hint)]) from error
        settings = {key: getattr(stored, key) for key in cls.model_fields}
        return settings | {"name": block}

    @classmethod
    def store(cls, entry: Mapping[str, Any], block: str, origin: str) -> None:
        """Keeps an entry as a block of this name, in place of one that has it; raises ConfigError."""
        destination = cls.from_entry(entry, origin)
        if not BLOCK_NAME.fullmatch(block):
            raise ConfigError([Fault("block", block, origin, "is no name", "lower-case letters, digits and dashes")])
        destination._save_as(block)

    @classmethod
    def stored(cls) -> list[Self]:
        """The destinations of this kind that are kept as blocks; Prefect's API must be within reach."""
        try:
            with get_client(sync_client=True) as client:
                documents = client.read_block_documents_by_type(cls.get_block_type_slug(), include_secrets=True)
        except (PrefectException, httpx.HTTPError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 404:
                return []  # nobody has registered the type yet
            raise DestinationDown(
                f"Prefect did not say which {cls._block_type_name} blocks it keeps: {error}"
            ) from error
        names = [str(document.name) for document in documents if document.name]
        return [cls.from_entry({"provider": cls.provider, "block": name}, f"block {name}") for name in names]

    def _save_as(self, block: str) -> None:
        try:
            self.save(block, overwrite=True, _sync=True)  # type: ignore[call-arg]
        except (PrefectException, httpx.HTTPError) as error:
            raise DestinationDown(f"{self.name}: Prefect did not keep its credentials: {error}") from error

    def _block_name(self) -> str:
        # Stable, so that a credential that was renewed replaces the old one; another account gets another block.
        shown = self.model_dump(mode="json", include={"base_path", *self._identity()})
        secret = [getattr(self, key) for key in self._identity() if key in self.secret_keys]
        account = [value.get_secret_value() for value in secret if isinstance(value, SecretStr)]
        digest = hashlib.sha256(repr((sorted(shown.items()), account)).encode()).hexdigest()
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:60]
        return f"{slug or self.provider}-{digest[:8]}"

    def _identity(self) -> tuple[str, ...]:
        return ()

    def probe(self, output_dir: Path | None = None) -> None:
        """Proves write access by putting, reading and deleting a small file."""
        with self._translated(), self._open_probe_store() as store:
            store.sizes(f".probe-{uuid4().hex}")  # what may not be listed cannot be verified later
            key, token = f".probe-{uuid4().hex}", uuid4().bytes
            store.write(key, token)
            answer = store.read(key)
            store.delete(key)
        if answer != token:
            raise PublishError(f"{self.name} gave back other bytes than were written. Check the storage.")

    @property
    def local_folder(self) -> Path | None:
        """The folder of this machine that it writes to, None for a service elsewhere."""
        return None

    def check_room(self, bytes: int) -> None:
        """Raises PublishError when that much cannot fit, where the storage can tell."""
        with self._translated(), self._open_probe_store() as store:
            store.reserve(bytes)

    def cautions(self) -> list[str]:
        """Says what may go wrong later although everything works now."""
        return []

    def wants(self, kind: Kind) -> bool:
        """Whether this destination keeps units of this kind: checkpoints, and the model or all of the output folder."""
        return kind in ("checkpoint", "release" if self.content == "model" else "folder")

    def publish(self, snapshot: Snapshot, on_progress: Progress, keep: int = 0) -> PublishResult:
        """Uploads what is not there yet, proves that it arrived, the manifest last; lets the oldest checkpoints go."""
        wanted = snapshot.manifest.select(self.include, self.exclude)
        if not wanted.files:
            raise PublishError(f"include and exclude leave nothing of {snapshot.name} for {self.name}. Widen them.")
        damage: list[str] = []
        with self._translated(), self._open_store(wanted) as store:
            manifest, sent_files, sent_bytes = send(store, snapshot, wanted, on_progress)
            if manifest is wanted:  # otherwise all of it was looked at already, and nothing was written
                damage = find_remote_damage(store, manifest, deep=False)
            if not damage and manifest.kind == "checkpoint":
                remove_surplus(store, manifest.run, keep, manifest.name)
        if damage:
            raise PublishError(f"{self.name} does not hold what was written: {'; '.join(damage[:5])}")
        return PublishResult(
            self.name, self.provider, snapshot.name, manifest.step, self.uri_of(manifest), True,
            len(manifest.files), manifest.size, sent_files, sent_bytes, manifest.sha256, dict(manifest.metadata),
        )  # fmt: skip

    def verify(self, manifest: Manifest, *, deep: bool = False) -> list[str]:
        """Says what is missing or wrong of a published unit; `deep` reads every byte."""
        with self._translated(), self._open_store() as store:
            return find_remote_damage(store, manifest.select(self.include, self.exclude), deep=deep)

    def clear_damage(self, manifest: Manifest) -> list[str]:
        """Reads every byte of a unit, removes what is wrong, for publishing to bring again, and says what it was."""
        with self._translated(), self._open_store() as store:
            return clear_damage(store, manifest.select(self.include, self.exclude))

    def prune(self, run: str, keep: int, newest: str) -> list[str]:
        """Removes the run's oldest checkpoints beyond `keep` (0 keeps all) and names them; `newest` always stays."""
        if keep <= 0:
            return []
        with self._translated(), self._open_store() as store:
            return remove_surplus(store, run, keep, newest)

    def uri_of(self, manifest: Manifest) -> str | None:
        """Where people find a published unit: below the public URL, if there is one."""
        base = self.public_base_url.rstrip("/") if self.public_base_url else self._base_uri().rstrip("/")
        return f"{base}/{quote(f'{self.base_path}/{manifest.prefix}'.strip('/'))}"

    def follow(self, uri: str) -> tuple[Self, Place] | None:
        """This destination, at the base path that a URI means, and what is named there; None if it leads elsewhere."""
        for root in filter(None, (self.public_base_url, self._base_uri(), *self._other_uris())):
            found = place_below(root, uri)
            if found is not None:
                base_path, place = found
                return self.model_copy(update={"base_path": base_path}), place
        return None

    def units(self, run: str) -> list[Manifest]:
        """The manifests of what stands there of a run, each unit whole; the newest comes last."""
        with self._translated(), self._open_store() as store:
            return list_units(store, run)

    def fetch(self, manifest: Manifest, target: Path, on_progress: Progress) -> None:
        """Brings a unit to a folder that is whole or not there; what an interrupted attempt has brought stays."""
        with self._translated(), self._open_store() as store:
            fetch_unit(
                lambda path, offset: store.chunks(f"{manifest.prefix}/{path}", offset), manifest, target, on_progress
            )


def hidden(text: str, secrets: Mapping[str, Any]) -> str:
    """A text in which none of these secrets stands, however deep they are nested."""
    for value in secrets.values():
        with contextlib.suppress(AttributeError):
            value = value.get_secret_value()  # noqa: PLW2901
        if isinstance(value, Mapping):
            text = hidden(text, value)
        elif isinstance(value, str) and value:
            text = text.replace(value, "***")
    return text
