"""The files of one repository on the Hub: what is written gathers, and becomes visible in one commit."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from blocks.parts.digests import digest_stream
from blocks.parts.hub_errors import status_of
from blocks.parts.hub_session import Limits, patient_client
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.threads import run_together

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

GROUP_BYTES, GROUP_FILES = 64 << 20, 100
CHUNK_BYTES = 1 << 20
CONFLICT = 412


@dataclass(frozen=True)
class Repository:
    """Which repository is meant, and where in it."""

    repo_id: str
    revision: str
    base_path: str
    limits: Limits
    make: Callable[[], None] | None = None
    """Makes the repository where it is missing; None where it is only read."""


@dataclass
class _Write:
    """A file that the next commit brings."""

    operation: CommitOperationAdd
    sha256: str
    size: int
    on_bytes: Progress | None = None
    is_sent: bool = False


class HubStore:
    """One repository as a store; reads see what was written, others see it after `commit`."""

    def __init__(self, api: HfApi, repository: Repository) -> None:
        self._api = api
        self._repository = repository
        self._writes: dict[str, _Write] = {}
        self._deletes: set[str] = set()
        self._blobs: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}
        self._head = ""
        self._tree: dict[str, RepoFile] = {}
        self._undo = contextlib.ExitStack()
        self.title = "Update"
        self.renames: dict[str, str] = {}
        """Folders that stand in the repository under another name."""

    def __enter__(self) -> Self:
        self._undo.enter_context(patient_client(self._repository.limits))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._undo:
            if error is None and (self._writes or self._deletes):
                self.commit()

    @property
    def head(self) -> str:
        """The commit that is read from."""
        if not self._head:
            self._load()
        return self._head

    def read(self, key: str) -> bytes | None:
        """The bytes of a small file, None if there is none."""
        path = self._path(key)
        if path in self._writes:
            with self._writes[path].operation.as_file() as file:
                return file.read()
        if path not in self._present():
            return None
        if path not in self._contents:
            self._contents[path] = b"".join(self._download(path, 0))
        return self._contents[path]

    def chunks(self, key: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset to its end."""
        path = self._path(key)
        if path not in self._present():
            raise PublishError(f"{path} is missing. Use another checkpoint, or publish this one again.")
        yield from self._download(path, offset)

    def sizes(self, prefix: str, span: tuple[str, str] | None = None) -> Mapping[str, int]:
        """The sizes of all files below a prefix, by their keys."""
        start = self._path(prefix)
        start = f"{start}/" if start else ""
        present = {path: file.size for path, file in self._present().items()}
        present |= {path: write.size for path, write in self._writes.items()}
        return {
            f"{prefix}/{path.removeprefix(start)}": size for path, size in present.items() if path.startswith(start)
        }

    def children(self, prefix: str) -> list[str]:
        """The names directly below a prefix."""
        return sorted({key.removeprefix(f"{prefix}/").split("/")[0] for key in self.sizes(prefix)})

    def stage(self, source: Path, key: str, record: FileRecord, on_bytes: Progress) -> None:
        """Takes a file up; groups of files are uploaded together, and stay invisible until the commit."""
        from huggingface_hub import CommitOperationAdd

        path = self._path(key)
        self._deletes.discard(path)
        self._writes[path] = _Write(CommitOperationAdd(path, str(source)), record.sha256, record.size, on_bytes)
        waiting = [write for write in self._writes.values() if not write.is_sent]
        if len(waiting) >= GROUP_FILES or sum(write.size for write in waiting) >= GROUP_BYTES:
            self.settle()

    def settle(self) -> None:
        """Uploads what was taken up and compares it with what was recorded; large contents that are there stay."""
        group = [write for write in self._writes.values() if not write.is_sent]
        if not group:
            return
        upload = partial(
            self._api.preupload_lfs_files,
            self._repository.repo_id,
            [write.operation for write in group],
            revision=self._repository.revision,
            free_memory=False,
        )
        run_together([lambda stop: upload()], 1, self._watch(group))
        for write in group:
            if write.operation.upload_info.sha256.hex() != write.sha256:
                raise PublishError(
                    f"{write.operation.path_in_repo} has other bytes than when it was frozen. Publish again; if that "
                    "fails too, check the disk."
                )
            write.is_sent = True
        _tell(group, done=1)

    def write(self, key: str, data: bytes, *, is_new: bool = False) -> None:
        """Has the next commit bring a small file."""
        from huggingface_hub import CommitOperationAdd

        path = self._path(key)
        self._deletes.discard(path)
        self._writes[path] = _Write(CommitOperationAdd(path, data), hashlib.sha256(data).hexdigest(), len(data))

    def delete(self, *keys: str) -> None:
        """Has the next commit remove files that may be missing."""
        for path in map(self._path, keys):
            self._writes.pop(path, None)
            if path in self._present():
                self._deletes.add(path)

    def commit(self) -> str:
        """Makes everything that was written visible at once; where the answer gets lost, the commit is looked for."""
        import httpx2
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        if not self._writes and not self._deletes:
            return self.head
        self.settle()
        operations = [write.operation for write in self._writes.values()]
        removals = [CommitOperationDelete(path) for path in sorted(self._deletes)]
        try:
            made = self._api.create_commit(
                self._repository.repo_id,
                [*operations, *removals],
                commit_message=self.title,
                revision=self._repository.revision,
                parent_commit=self.head,
            ).oid
        except (HfHubHTTPError, httpx2.HTTPError, ValueError) as error:
            if not _may_have_arrived(error) or not self._is_applied():
                raise
            made = self._head
        self._blobs |= {path: _git_blob(write) for path, write in self._writes.items() if _is_small(write)}
        self._writes, self._deletes = {}, set()
        self.look_again()
        self._head = made
        return made

    def has_content(self, key: str, record: FileRecord) -> bool:
        """Whether a file has the recorded bytes, by the Hub's own digest or by reading it."""
        path = self._path(key)
        file = self._present().get(path)
        if file is None:
            return False
        if file.lfs is not None:
            return bool(file.lfs.sha256 == record.sha256)
        if path in self._blobs:
            return bool(file.blob_id == self._blobs[path])
        return digest_stream(self._download(path, 0)).sha256 == record.sha256

    def drop_unfinished(self, prefix: str, older_than_s: float = 0) -> None:
        """Nothing to do: the Hub itself forgets what no commit names."""

    def reserve(self, bytes: int) -> None:
        """Nothing to do: the Hub does not tell how much room there is."""

    def look_again(self) -> None:
        """Forgets what was read, and reads it anew where it is asked for."""
        self._tree, self._contents = {}, {}

    def describe(self) -> dict[str, Any]:
        """What the repository's own page says of it."""
        info = self._api.repo_info(self._repository.repo_id, revision=self._repository.revision)
        self._head = str(info.sha)
        return {"private": bool(info.private), "commit": self._head, "changed": str(info.last_modified or "")}

    def tag(self, name: str) -> None:
        """Sees to it that a tag names the commit that is read from."""
        refs = self._api.list_repo_refs(self._repository.repo_id)
        present = {ref.name: ref.target_commit for ref in refs.tags}
        if present.get(name) == self.head:
            return
        if name in present:
            self._api.delete_tag(self._repository.repo_id, tag=name)
        self._api.create_tag(self._repository.repo_id, tag=name, revision=self.head, exist_ok=True)

    def _watch(self, group: list[_Write]) -> Callable[[], None]:
        enough_s = self._repository.limits.enough_s(sum(write.size for write in group))
        end = time.monotonic() + enough_s

        def look() -> None:
            _tell(group, done=0)
            if time.monotonic() > end:
                raise DestinationDown(f"{self._repository.repo_id}: an upload did not end within {enough_s:.0f} s.")

        return look

    def _path(self, key: str) -> str:
        # A repository is one run's own, so the run's name, with which every key begins, is left out.
        parts = key.split("/")[1:]
        if parts:
            parts[0] = self.renames.get(parts[0], parts[0])
        return "/".join([*filter(None, [self._repository.base_path]), *parts])

    def _present(self) -> Mapping[str, RepoFile]:
        if not self._tree:
            self._load()
        return {path: file for path, file in self._tree.items() if path not in self._deletes}

    def _load(self) -> None:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            self._look()
        except RepositoryNotFoundError:
            if self._repository.make is None:
                raise
            self._repository.make()
            self._look()

    def _look(self) -> None:
        from huggingface_hub.errors import RevisionNotFoundError
        from huggingface_hub.hf_api import RepoFile

        repo_id, revision = self._repository.repo_id, self._repository.revision
        if not self._head:
            try:
                self._head = str(self._api.repo_info(repo_id, revision=revision).sha)
            except RevisionNotFoundError:
                if self._repository.make is None:
                    raise
                self._api.create_branch(repo_id, branch=revision, exist_ok=True)
                self._head = str(self._api.repo_info(repo_id, revision=revision).sha)
        found = self._api.list_repo_tree(repo_id, recursive=True, revision=self._head)
        self._tree = {file.path: file for file in found if isinstance(file, RepoFile)}

    def _is_applied(self) -> bool:
        before = self._head
        self._head, self._tree = "", {}
        self._look()
        if self._head == before:
            return False
        if self._deletes & set(self._tree):
            raise DestinationDown(f"{self._repository.repo_id} was changed by somebody else meanwhile.")
        if not all(_stands(write, self._tree.get(path)) for path, write in self._writes.items()):
            raise DestinationDown(f"{self._repository.repo_id} was changed by somebody else meanwhile.")
        return True

    def _download(self, path: str, offset: int) -> Iterator[bytes]:
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        url = hf_hub_url(self._repository.repo_id, path, revision=self.head, endpoint=self._api.endpoint)
        headers = build_hf_headers(token=self._api.token) | ({"Range": f"bytes={offset}-"} if offset else {})
        with get_session().stream("GET", url, headers=headers) as response:
            if response.status_code >= 400:
                response.read()
                hf_raise_for_status(response)
            skip = offset if response.status_code == 200 else 0  # a server that gives everything, whatever is asked for
            for block in response.iter_bytes(CHUNK_BYTES):
                if skip < len(block):
                    yield block[skip:]
                skip = max(0, skip - len(block))


def _tell(group: list[_Write], *, done: int) -> None:
    for write in group:
        if write.on_bytes:
            write.on_bytes(write.size * done, write.size)


def _may_have_arrived(error: Any) -> bool:
    status = status_of(error)
    return status in (0, 408, CONFLICT) or status >= 500


def _stands(write: _Write, file: RepoFile | None) -> bool:
    if file is None:
        return False
    if file.lfs is not None:
        return bool(file.lfs.sha256 == write.sha256)
    return bool(file.size == write.size and file.blob_id == _git_blob(write))


def _is_small(write: _Write) -> bool:
    return write.operation._upload_mode != "lfs"


def _git_blob(write: _Write) -> str:
    digest = hashlib.sha1(b"blob %d\0" % write.size, usedforsecurity=False)
    with write.operation.as_file() as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()
