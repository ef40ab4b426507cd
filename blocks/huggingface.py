"""Publishing to the Hugging Face Hub: one commit per unit, proved by the Hub's own digests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks.parts.hub_checks import FIX_MISSING, Inspection, inspect
from blocks.parts.hub_errors import Party, translated
from blocks.parts.hub_layout import LAST, Part, Strategy, is_checkpoint, is_superseded, part_of, weights_of
from blocks.parts.hub_names import HUB, find_name_doubts, find_name_faults, read_uri, tidy_id
from blocks.parts.hub_session import Limits, patient_client
from blocks.parts.hub_store import HubStore, Repository
from blocks.parts.hub_token import HubToken, find_token
from blocks.parts.kept import KeptDestination, hidden
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.checklist import Check, failures
from flowtuner.publishing.destination import Place, Progress, PublishResult
from flowtuner.publishing.fetch import fetch_unit
from flowtuner.publishing.manifest import MANIFEST_NAME, Kind, Manifest, parse_manifest
from flowtuner.publishing.snapshot import Snapshot
from flowtuner.publishing.transfer import clear_damage, find_remote_damage, remove_surplus, send

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TURN_S = 0.5  # how soon a run that is stopped lets go of an upload that waits for its turn
LIMITS = Limits(connect_s=10, silent_s=60)
# A probe answers a person who waits; the flow's own retries are for what takes longer.
PROBE_LIMITS = Limits(connect_s=3, silent_s=5)


class HuggingFaceDestination(KeptDestination):
    """A repository on the Hugging Face Hub that keeps a run's release, its card, and its checkpoints.

    Example:
        ```python
        from blocks.huggingface import HuggingFaceDestination

        destination = HuggingFaceDestination.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Flowtuner Hugging Face Hub"
    _block_type_slug = "flowtuner-huggingface"
    _description = "Publishes checkpoints and releases to a repository on the Hugging Face Hub."

    provider: ClassVar[str] = "huggingface"
    aliases: ClassVar[tuple[str, ...]] = ("hub", "hf", "huggingface_hub")
    spellings: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "hub_model_id": "repo_id",
            "model_id": "repo_id",
            "hub_token": "token",
            "hub_private_repo": "private",
            "hub_revision": "revision",
            "strategy": "hub_strategy",
        }
    )
    secret_keys: ClassVar[frozenset[str]] = frozenset({"token"})

    repo_id: str = Field("", description="The repository, owner/name; made if it is missing.")
    own_repo: str = Field("", description="Instead of repo_id: a name in the namespace of the token's owner.")
    token: SecretStr | None = Field(
        None, description="Access token that may write; without one HF_TOKEN and the file of `hf auth login` are asked."
    )
    endpoint: str | None = Field(None, description="Address of a Hub that is not huggingface.co; default HF_ENDPOINT.")
    revision: str = Field("main", description="The branch that is committed to.")
    private: bool | None = Field(
        None, description="Whether the repository is private; by default a new one is, and an existing one stays."
    )
    hub_strategy: Strategy = Field(
        "all_checkpoints",
        description="end: the release alone. every_save: the newest weights too. checkpoint: and the newest checkpoint "
        "with all that resuming needs, in last-checkpoint. all_checkpoints: every checkpoint in its own folder.",
    )
    allow_existing: bool = Field(False, description="Whether a repository that holds something else may be used.")

    _block: str = PrivateAttr("")
    _source: str = PrivateAttr("")
    _owner: str = PrivateAttr("")
    _turn: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @field_validator("repo_id", "own_repo")
    @classmethod
    def _tidy(cls, value: str) -> str:
        return tidy_id(value)

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if not value or not value.strip():
            return None
        url = urlsplit(value.strip())
        if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
            raise ValueError("must be an address such as https://huggingface.co, without user or password")
        return value.strip().rstrip("/")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if bool(self.repo_id) == bool(self.own_repo):
            raise ValueError("repo_id says which repository: owner/name")
        if self.repo_id and (faults := find_name_faults(self.repo_id)):
            raise ValueError(f"repo_id is no name of a repository: {faults[0]}")
        place = f"{self.repo_id or self.own_repo}/{self.base_path}".rstrip("/")
        self.name = self.name or f"{self.provider}:{place}"
        return self

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any], origin: str) -> Self:
        """Makes the destination from an entry, or from the stored block it names with the entry's own keys on top."""
        destination = super().from_entry(entry, origin)
        if entry.get("block") and not entry.get("token") and not entry.get("hub_token"):
            destination._block = str(entry["block"])
        destination._source = f"the block {destination._block}" if destination._block else f"{origin}.token"
        return destination

    @classmethod
    def entry_of_uri(cls, uri: str) -> dict[str, Any] | None:
        """An entry without credentials whose destination can follow a URI; None if the URI is of another kind."""
        found = read_uri(uri)
        return {"provider": cls.provider, **found[0]} if found else None

    def wants(self, kind: Kind) -> bool:
        """Whether units of this kind are kept at all: with the strategy `end` checkpoints are not."""
        return kind == "release" or (kind == "checkpoint" and self.hub_strategy != "end")

    def inspect(self, output_dir: Path | None = None) -> list[Check]:
        """Looks at token, name, namespace, repository and rights; makes the repository if it is missing."""
        inspection = Inspection(
            repo_id=self.repo_id,
            own_repo=self.own_repo,
            endpoint=self._address(),
            private=self.private,
            allow_existing=self.allow_existing,
            run=output_dir.name if output_dir else "",
            base_path=self.base_path,
            revision=self.revision,
            limits=PROBE_LIMITS,
        )
        return inspect(inspection, self._find_token())

    def probe(self, output_dir: Path | None = None) -> None:
        """Proves the token's rights to the repository, and makes it if it is missing."""
        failed = failures(self.inspect(output_dir))
        if not failed:
            return
        text = "; ".join(map(str, failed))
        shown = f"{self.name}: {hidden(text, {'token': self._find_token().value})}"
        raise DestinationDown(shown) if failed[0].code == "hub_unreachable" else PublishError(shown)

    def publish(self, snapshot: Snapshot, on_progress: Progress, keep: int = 0) -> PublishResult:
        """Uploads what is not there yet and makes it visible in one commit, which lets the oldest checkpoints go."""
        wanted = snapshot.manifest.select(self.include, self.exclude)
        if not wanted.files:
            raise PublishError(f"include and exclude leave nothing of {snapshot.name} for {self.name}. Widen them.")
        with self._alone(partial(on_progress, 0, wanted.size)), self._translated(), self._open_store(wanted) as store:
            store.title = f"{'Release' if wanted.kind == 'release' else 'Checkpoint'} of step {wanted.step}"
            parts = self._parts(store, wanted)
            sent = [send(store, snapshot, part.manifest, on_progress, part.sources) for part in parts]
            if wanted.kind == "checkpoint" and self.hub_strategy == "all_checkpoints":
                remove_surplus(store, wanted.run, keep, wanted.name)
            store.commit()
            self._prove(store, wanted, [part.manifest for part in parts])
            if wanted.kind == "release" and wanted.run_id:
                store.tag(f"run-{wanted.run_id}")
        manifest, files, bytes = sent[0] if sent else (wanted, 0, 0)
        return PublishResult(
            self.name, self.provider, snapshot.name, wanted.step, self.uri_of(wanted), True,
            len(manifest.files), manifest.size, files, bytes, manifest.sha256, dict(manifest.metadata),
        )  # fmt: skip

    def verify(self, manifest: Manifest, *, deep: bool = False) -> list[str]:
        """Says what is missing or wrong of a published unit: the Hub tells large files' SHA-256, others are read."""
        with self._translated(), self._open_store() as store:
            return self._find_damage(store, manifest.select(self.include, self.exclude))

    def uri_of(self, manifest: Manifest) -> str | None:
        """The page of the repository, or of a checkpoint's folder in it."""
        folder = {"checkpoint": LAST, "all_checkpoints": manifest.name}.get(self.hub_strategy, "")
        path = "/".join(filter(None, [self.base_path, folder if manifest.kind == "checkpoint" else ""]))
        page = f"{self._base_uri()}/{quote(self._repo_id())}"
        if not path and self.revision == "main":
            return page
        return f"{page}/tree/{quote(self.revision, safe='')}/{quote(path)}".rstrip("/")

    def create(self) -> str:
        """Makes the repository, private unless it was said to be public; answers with its address."""
        from huggingface_hub import HfApi

        token = self._find_token()
        if token.problem:
            raise PublishError(f"token_missing: {self.name}: {token.problem}. {FIX_MISSING}")
        with self._translated(), patient_client(PROBE_LIMITS):
            api = HfApi(endpoint=self._address(), token=token.value)
            return str(api.create_repo(self._repo_id(api), private=self.private is not False))

    def cautions(self) -> list[str]:
        """Says what may go wrong later although everything works now."""
        return [f"{self.name}: {doubt}" for doubt in find_name_doubts(self.repo_id or self.own_repo)]

    def where(self) -> dict[str, Any]:
        """What can be seen of the repository: whether it is there, private, whose it is, and what it holds of runs."""
        with self._translated(), self._open_store() as store:
            info = store.describe()
            found = _list_units(store)
        units = [
            {"what": unit.name, "run": unit.run, "step": unit.step, "files": len(unit.files), "bytes": unit.size}
            for unit in found
        ]
        return {
            "repo_id": self._repo_id(),
            "url": f"{self._base_uri()}/{quote(self._repo_id())}",
            **info,
            "units": units,
        }

    def fetch(self, manifest: Manifest, target: Path, on_progress: Progress) -> None:
        """Brings a unit to a folder that is whole or not there; what an interrupted attempt has brought stays."""
        with self._translated(), self._open_store() as store:
            _locate(store, manifest)
            fetch_unit(
                lambda path, offset: store.chunks(f"{manifest.prefix}/{path}", offset), manifest, target, on_progress
            )

    def clear_damage(self, manifest: Manifest) -> list[str]:
        """Removes what has other bytes than it should, in one commit, and says what it was."""
        with self._translated(), self._open_store() as store:
            store.title = f"Remove what is damaged of {manifest.name}"
            _locate(store, manifest)
            return clear_damage(store, manifest.select(self.include, self.exclude))

    def units(self, run: str) -> list[Manifest]:
        """The manifests of what stands there, each unit whole; the newest comes last."""
        with self._translated(), self._open_store() as store:
            return _list_units(store)

    def follow(self, uri: str) -> tuple[Self, Place] | None:
        """This destination, at the base path that a URI means, and what is named there; None if it leads elsewhere."""
        found = read_uri(uri)
        if found is None or found[0]["repo_id"] != self._repo_id():
            return None
        if found[0].get("endpoint", self._address()) != self._address():
            return None
        base_path = found[0].get("base_path", "")
        return self.model_copy(update={"base_path": base_path}), Place(self._repo_id().partition("/")[2], found[1])

    @contextmanager
    def _alone(self, tell: Callable[[], None]) -> Iterator[None]:
        # Two commits from one parent exclude each other, so the uploads of a run take turns.
        while not self._turn.acquire(timeout=TURN_S):
            tell()
        try:
            yield
        finally:
            self._turn.release()

    def _parts(self, store: HubStore, wanted: Manifest) -> list[Part]:
        """What of a unit is to stand where, as far as nothing later stands there."""
        parts = []
        whole = part_of(wanted, self.hub_strategy)
        if whole is not None:
            present = self._present(store, whole)
            if whole.folder != LAST or not is_superseded(wanted, present):
                parts.append(whole)
        if wanted.kind == "checkpoint":
            present = parse_manifest(store.read(f"{wanted.run}/{MANIFEST_NAME}"))
            if not is_superseded(wanted, present):
                parts.append(weights_of(wanted, present, store.sizes(wanted.run)))
        return parts

    def _prove(self, store: HubStore, wanted: Manifest, sent: Sequence[Manifest]) -> None:
        for _ in range(2):  # an answer may be damaged on its way, too
            damage = [each for manifest in sent for each in find_remote_damage(store, manifest, deep=True)]
            damage = damage or ([] if sent else self._find_damage(store, wanted))
            if not damage:
                return
            store.look_again()
        # Small files travel in the commit itself, which nobody but us compares with anything: half a model must not
        # look whole until the next attempt.
        store.title = f"Take back what arrived damaged of step {wanted.step}"
        for manifest in sent:
            clear_damage(store, manifest)
            store.delete(f"{manifest.prefix}/{MANIFEST_NAME}")
        store.commit()
        raise DestinationDown(f"{self.name} does not hold what was written: {'; '.join(damage[:5])}")

    def _find_damage(self, store: HubStore, wanted: Manifest) -> list[str]:
        if not self.wants(wanted.kind):
            return []
        whole = part_of(wanted, self.hub_strategy)
        if whole is not None and whole.folder != LAST:
            _locate(store, whole.manifest)
            return find_remote_damage(store, whole.manifest, deep=True)
        # One place for all checkpoints: a later one of the same run stands in for this one.
        present = self._present(store, whole) if whole else parse_manifest(store.read(f"{wanted.run}/{MANIFEST_NAME}"))
        if is_superseded(wanted, present):
            assert present is not None
            return find_remote_damage(store, present, deep=True)
        return find_remote_damage(
            store, (whole or weights_of(wanted, present, store.sizes(wanted.run))).manifest, deep=True
        )

    def _present(self, store: HubStore, part: Part) -> Manifest | None:
        if not part.folder:
            return None
        present = parse_manifest(store.read(f"{part.manifest.run}/{part.folder}/{MANIFEST_NAME}"))
        store.renames |= {unit.name: part.folder for unit in (part.manifest, present) if unit is not None}
        return present

    def _open_store(self, manifest: Manifest | None = None) -> HubStore:
        from huggingface_hub import HfApi

        token = self._find_token()
        if token.problem and manifest is not None:
            raise PublishError(f"token_missing: {self.name}: {token.problem}. {FIX_MISSING}")
        api = HfApi(endpoint=self._address(), token=token.value or False)
        repo_id = self._repo_id(api)
        make = partial(self._create, api, repo_id) if manifest else None
        return HubStore(api, Repository(repo_id, self.revision, self.base_path, LIMITS, make))

    def _create(self, api: HfApi, repo_id: str) -> None:
        api.create_repo(repo_id, private=self.private is not False, exist_ok=True)

    def _repo_id(self, api: HfApi | None = None) -> str:
        if self.repo_id:
            return self.repo_id
        if not self._owner:
            from huggingface_hub import HfApi

            with self._translated(), patient_client(LIMITS):
                asked = api or HfApi(endpoint=self._address(), token=self._find_token().value or False)
                self._owner = str(asked.whoami()["name"])
        return f"{self._owner}/{self.own_repo}"

    def _find_token(self) -> HubToken:
        if self._block:
            # Read anew each time: a token that was revoked is replaced there, and no run has to be started again.
            stored = self._stored_settings(self._block, self.name).get("token")
            return find_token(_reveal(stored), self._source)
        return find_token(_reveal(self.token), self._source or "the entry's token")

    def _address(self) -> str:
        return self.endpoint or os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB

    def _base_uri(self) -> str:
        return self._address()

    def _identity(self) -> tuple[str, ...]:
        return ("repo_id", "own_repo", "endpoint")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        token = self._find_token()
        party = Party(self.name, self.repo_id or self.own_repo, self._address(), token.source)
        try:
            with translated(party):
                yield
        except (PublishError, DestinationDown) as error:
            shown = hidden(str(error), {"token": token.value})
            if shown == str(error):
                raise
            raise type(error)(shown) from None


def _list_units(store: HubStore) -> list[Manifest]:
    # A repository is one run's own, whatever the run was called: its name is no part of any path.
    folders = ["", *(f"{name}/" for name in store.children("") if is_checkpoint(name))]
    found = [parse_manifest(store.read(f"/{folder}{MANIFEST_NAME}")) for folder in folders]
    units = {unit.name: unit for unit in found if unit is not None}
    return sorted(units.values(), key=lambda unit: (unit.created, unit.step))


def _locate(store: HubStore, manifest: Manifest) -> None:
    # A checkpoint may have been published by a run that keeps the newest one only, under one name for all.
    if manifest.kind == "release" or store.read(f"{manifest.prefix}/{MANIFEST_NAME}") is not None:
        return
    last = parse_manifest(store.read(f"{manifest.run}/{LAST}/{MANIFEST_NAME}"))
    if last is not None and last.name == manifest.name:
        store.renames[manifest.name] = LAST


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
