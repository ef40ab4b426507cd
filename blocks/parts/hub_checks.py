"""What must be right before a run may trust the Hub with its results, each with a code and a remedy."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from blocks.parts.hub_errors import FIX_401, FIX_403, FIX_404, Party, status_of, translated
from blocks.parts.hub_names import find_name_doubts, find_name_faults
from blocks.parts.hub_session import Limits, patient_client
from blocks.parts.hub_store import HubStore, Repository
from blocks.parts.hub_token import HubToken
from flowtuner.errors import DestinationDown, FlowtunerError, PublishError
from flowtuner.publishing.checklist import Check
from flowtuner.publishing.manifest import MANIFEST_NAME, parse_manifest

TRIES, PAUSE_S = 3, 0.25
PROBE_FILE, PROBE_BYTES = "/preflight.bin", 64
WRITERS = ("write", "admin", "contributor")
OURS = frozenset({".gitattributes", "README.md", "LICENSE", ".gitignore"})
FIX_MISSING = (
    'Store it in the block, give the job secrets={"HF_TOKEN": "$HF_TOKEN"}, set HF_TOKEN, or sign in with '
    "`hf auth login`."
)
FIX_NAMESPACE = "Use one of: {names}; or ask an owner of the organisation for the role write."

T = TypeVar("T")


@dataclass(frozen=True)
class Inspection:
    """What is to be looked at."""

    repo_id: str
    own_repo: str
    endpoint: str
    private: bool | None
    allow_existing: bool
    run: str
    base_path: str
    revision: str
    limits: Limits


@dataclass
class _Findings:
    checks: list[Check] = field(default_factory=list)

    def add(self, code: str, what: str, state: Any, reason: str = "", fix: str = "") -> bool:
        self.checks.append(Check(code, what, state, reason, fix))
        return bool(state != "fail")


def inspect(wanted: Inspection, token: HubToken) -> list[Check]:
    """All checks in their order; what a failed one makes pointless is left out."""
    found = _Findings()
    is_named = _check_name(wanted, found)
    if not _check_token(token, found) or not is_named:
        return found.checks
    with patient_client(wanted.limits):
        try:
            _ask(wanted, token, found)
        except DestinationDown as error:
            found.add("hub_unreachable", "the Hub answers", "fail", str(error), "Check the network and the endpoint.")
        except PublishError as error:
            code, _, text = str(error).partition(": ")
            found.add(code, "the Hub takes what it is asked", "fail", text)
    return found.checks


def _check_token(token: HubToken, found: _Findings) -> bool:
    if token.problem:
        return found.add("token_missing", "a token is there", "fail", f"{token.problem}.", FIX_MISSING)
    return found.add("token", "a token is there", "pass", f"it is from {token.source}")


def _check_name(wanted: Inspection, found: _Findings) -> bool:
    name = wanted.repo_id or f"owner/{wanted.own_repo}"
    faults = find_name_faults(name)
    if faults:
        fix = "Name it owner/name, such as your-name/fox-pixart-lora."
        return found.add("name_invalid", "the name is valid", "fail", f"{name!r}: {'; '.join(faults)}.", fix)
    for doubt in find_name_doubts(wanted.repo_id or wanted.own_repo):
        found.add("name_doubtful", "the name is a good one", "warn", doubt)
    return found.add("name", "the name is valid", "pass", name)


def _ask(wanted: Inspection, token: HubToken, found: _Findings) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=wanted.endpoint, token=token.value)
    party = Party("the Hub", wanted.repo_id or wanted.own_repo, wanted.endpoint, token.source)
    try:
        me = _asked(api.whoami, party)
    except PublishError as error:
        if _status(error) == 401:
            reason = f"the Hub does not know the token from {token.source}: it is mistyped, expired or revoked."
            found.add("token_invalid", "the token is valid", "fail", reason, FIX_401)
            return
        raise
    found.add("token_valid", "the token is valid", "pass", f"it is {me['name']}'s")
    repo_id = wanted.repo_id or f"{me['name']}/{wanted.own_repo}"
    party = replace(party, repo_id=repo_id)
    if not _check_namespace(repo_id, me, found):
        return
    wanted = replace(wanted, repo_id=repo_id)
    if not _check_repository(api, wanted, party, found):
        return
    if _check_write(api, repo_id, party, found):
        _check_storage(api, wanted, party, found)


def _check_namespace(repo_id: str, me: dict[str, Any], found: _Findings) -> bool:
    owner = repo_id.partition("/")[0]
    roles = {str(org.get("name")): org.get("roleInOrg") for org in me.get("orgs", [])}
    writable = [me["name"], *(name for name, role in roles.items() if role in WRITERS)]
    what = "the namespace is writable"
    fix = FIX_NAMESPACE.format(names=", ".join(writable))
    if owner in roles and owner not in writable:
        return found.add("namespace_foreign", what, "fail", f"your role in {owner} is {roles[owner]}.", fix)
    if owner not in writable:
        return found.add(
            "namespace_foreign", what, "fail", f"{owner} is neither you nor an organisation of yours.", fix
        )
    access = me.get("auth", {}).get("accessToken", {})
    if access.get("role") == "read":
        reason = "the token's role is read."
        return found.add("write_forbidden", what, "fail", reason, "Make a token whose role is write. " + FIX_403)
    scopes = list(_writable_scopes(access))
    if access.get("role") == "fineGrained" and scopes and not {owner, repo_id} & set(scopes):
        reason = f"the fine-grained token may write {', '.join(scopes)} only."
        return found.add("write_forbidden", what, "fail", reason, f"Allow it repo.write on {owner}. " + FIX_403)
    return found.add("namespace", what, "pass", owner)


def _writable_scopes(access: dict[str, Any]) -> Iterator[str]:
    for scope in (access.get("fineGrained") or {}).get("scoped", []):
        if "repo.write" in scope.get("permissions", []):
            yield str(scope.get("entity", {}).get("name", ""))


def _check_repository(api: Any, wanted: Inspection, party: Party, found: _Findings) -> bool:
    what = "the repository can be used"
    try:
        info = _asked(lambda: api.repo_info(wanted.repo_id), party)
    except PublishError as error:
        if _status(error) not in (401, 404):
            raise
        return _create(api, wanted, party, found)
    is_private = bool(info.private)
    if wanted.private and not is_private:
        reason = f"{wanted.repo_id} is public, and private was asked for."
        fix = "Make it private in its settings, choose another hub_model_id, or say that it is not private."
        return found.add("visibility_differs", what, "fail", reason, fix)
    if wanted.private is False and is_private:
        reason = f"{wanted.repo_id} is private, and public was asked for; it stays private."
        found.add("visibility_differs", what, "warn", reason, "Change it in the repository's settings.")
    stranger = _asked(lambda: _find_stranger(api, wanted, {one.rfilename for one in info.siblings or []}), party)
    if stranger and not wanted.allow_existing:
        fix = 'Choose another hub_model_id, or set "allow_existing": true if it may be written over.'
        return found.add("name_conflict", what, "fail", f"{wanted.repo_id} already holds {stranger}.", fix)
    return found.add("repository", what, "pass", f"it is there, {'private' if is_private else 'public'}")


def _create(api: Any, wanted: Inspection, party: Party, found: _Findings) -> bool:
    what = "the repository can be used"
    try:
        _asked(lambda: api.create_repo(wanted.repo_id, private=wanted.private is not False, exist_ok=True), party)
    except PublishError as error:
        reason = f"{wanted.repo_id} does not exist, and could not be made: {_words(error)}"
        return found.add("create_forbidden", what, "fail", reason, FIX_404)
    return found.add("created", what, "pass", "it was missing and is made")


def _check_write(api: Any, repo_id: str, party: Party, found: _Findings) -> bool:
    what = "the token may write"
    try:
        # Making a repository that is there already succeeds with a token that only reads; this asks.
        _asked(lambda: api.auth_check(repo_id, write=True), party)
    except PublishError as error:
        if _status(error) not in (401, 403, 404):
            raise
        return found.add("write_forbidden", what, "fail", f"the token may not write {repo_id}.", FIX_403)
    return found.add("write", what, "pass")


def _check_storage(api: Any, wanted: Inspection, party: Party, found: _Findings) -> bool:
    """Whether large files get through and there is room for them, which no right to write says."""
    what = "the Hub stores what it is given"
    try:
        _asked(lambda: _store_and_forget(api, wanted), party)
    except PublishError as error:
        code, _, text = str(error).partition(": ")
        return found.add(code, what, "fail", text)
    return found.add("storage", what, "pass")


def _store_and_forget(api: Any, wanted: Inspection) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    # Two destinations of one repository are looked at together, and a probe that was killed is followed by the same.
    place = f"{wanted.revision}/{wanted.base_path}"
    branch = f"preflight-{zlib.crc32(place.encode()):08x}"
    api.create_branch(wanted.repo_id, branch=branch, exist_ok=True)
    try:
        with HubStore(api, Repository(wanted.repo_id, branch, "", wanted.limits)) as store:
            store.title = "Can files be stored?"
            store.write(PROBE_FILE, os.urandom(PROBE_BYTES))
    finally:
        with contextlib.suppress(HfHubHTTPError):
            api.delete_branch(wanted.repo_id, branch=branch)


def _find_stranger(api: Any, wanted: Inspection, paths: set[str]) -> str:
    """What a repository holds that no run of this name has put there."""
    start = f"{wanted.base_path}/" if wanted.base_path else ""
    inside = {path.removeprefix(start) for path in paths if path.startswith(start)} - OURS
    if not inside:
        return ""
    repository = Repository(wanted.repo_id, wanted.revision, wanted.base_path, wanted.limits)
    names = sorted(path for path in inside if path.split("/")[-1] == MANIFEST_NAME and path.count("/") <= 1)
    if not names:
        return "files that no run has published"
    with HubStore(api, repository) as store:
        manifest = parse_manifest(store.read(f"/{names[-1]}"))
    if manifest is None:
        return "files that no run has published"
    return f"the run {manifest.run!r}" if wanted.run and manifest.run != wanted.run else ""


def _asked(call: Callable[[], T], party: Party) -> T:
    """Asks, and asks again where it may help: the client itself asks these questions once."""
    for left in reversed(range(TRIES)):
        try:
            with translated(party):
                return call()
        except DestinationDown:
            if not left:
                raise
            time.sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _status(error: FlowtunerError) -> int:
    return status_of(error.__cause__)


def _words(error: FlowtunerError) -> str:
    return str(error).partition(": ")[2]
