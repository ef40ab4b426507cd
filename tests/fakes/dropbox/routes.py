"""The routes of Dropbox's API that publishing needs: each takes an account, an argument and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from dropbox.content_hash import content_hash

from tests.fakes.dropbox.account import Account, Refusal, UploadSession, fold, refuse

REQUEST_LIMIT_BYTES = 150 << 20
BATCH_LIMIT = 1000
PAGE = 500

Route = Callable[[Account, Any, bytes], Any]


def upload(account: Account, arg: Any, data: bytes) -> Any:
    """files/upload"""
    _check_hash(arg, data)
    try:
        return account.commit(arg, data).metadata()
    except Refusal as refusal:
        raise Refusal(409, {".tag": "path", "reason": refusal.error, "upload_session_id": ""}) from refusal


def session_start(account: Account, arg: Any, data: bytes) -> Any:
    """files/upload_session/start"""
    _check_hash(arg, data)
    name = f"session-{uuid4().hex}"
    account.sessions[name] = UploadSession(account.clock(), bytearray(data), bool(arg.get("close")))
    return {"session_id": name}


def session_start_batch(account: Account, arg: Any, _: bytes) -> Any:
    """files/upload_session/start_batch"""
    if not 1 <= arg["num_sessions"] <= BATCH_LIMIT:
        raise Refusal(400, "num_sessions must be in 1..1000")
    return {"session_ids": [session_start(account, {}, b"")["session_id"] for _ in range(arg["num_sessions"])]}


def session_append(account: Account, arg: Any, data: bytes) -> Any:
    """files/upload_session/append_v2"""
    session = account.session(arg["cursor"])
    _check_hash(arg, data)
    session.data += data
    session.is_closed = bool(arg.get("close"))


def session_append_batch(account: Account, arg: Any, data: bytes) -> Any:
    """files/upload_session/append_batch"""
    _check_hash(arg, data)
    if sum(entry["length"] for entry in arg["entries"]) != len(data):
        raise refuse("length_mismatch")
    results, position = [], 0
    for entry in arg["entries"]:
        piece = data[position : position + entry["length"]]
        position += entry["length"]
        try:
            session = account.session(entry["cursor"])
        except Refusal as refusal:
            results.append({".tag": "failure", "failure": refusal.error})
            continue
        session.data += piece
        session.is_closed = bool(entry.get("close"))
        results.append({".tag": "success"})
    return {"entries": results}


def session_finish(account: Account, arg: Any, data: bytes) -> Any:
    """files/upload_session/finish"""
    _check_hash(arg, data)
    try:
        session = account.session(arg["cursor"])
    except Refusal as refusal:
        raise refuse("lookup_failed", refusal.error) from refusal
    return _finish(account, arg, bytes(session.data) + data)


def session_finish_batch(account: Account, arg: Any, _: bytes) -> Any:
    """files/upload_session/finish_batch_v2"""
    if not 1 <= len(arg["entries"]) <= BATCH_LIMIT:
        raise Refusal(400, "entries must be 1 to 1000")
    return {"entries": [_finish_entry(account, entry) for entry in arg["entries"]]}


def download(account: Account, arg: Any, _: bytes) -> Any:
    """files/download"""
    found = account.files.get(fold(arg["path"]))
    if found is None:
        raise refuse("path", "not_file" if fold(arg["path"]) in account.folders else "not_found")
    return found


def get_metadata(account: Account, arg: Any, _: bytes) -> Any:
    """files/get_metadata"""
    lower = fold(arg["path"])
    if lower in account.files:
        return account.files[lower].metadata()
    if lower in account.folders:
        return account.folder_metadata(lower)
    raise refuse("path", "not_found")


def list_folder(account: Account, arg: Any, _: bytes) -> Any:
    """files/list_folder"""
    lower = fold(arg["path"])
    if lower in account.files:
        raise refuse("path", "not_folder")
    if lower and lower not in account.folders:
        raise refuse("path", "not_found")
    inside = f"{lower}/"
    names = [name for name in (*account.folders, *account.files) if name.startswith(inside)]
    if not arg.get("recursive"):
        names = [name for name in names if "/" not in name[len(inside) :]]
    told = [
        account.files[name].metadata() if name in account.files else account.folder_metadata(name) for name in names
    ]
    return _page(account, told, int(arg.get("limit") or PAGE))


def list_folder_continue(account: Account, arg: Any, _: bytes) -> Any:
    """files/list_folder/continue"""
    if arg["cursor"] not in account.cursors:
        raise refuse("reset")
    return _page(account, account.cursors[arg["cursor"]], PAGE)


def create_folder(account: Account, arg: Any, _: bytes) -> Any:
    """files/create_folder_v2"""
    lower = fold(arg["path"])
    for kind, there in (("file", account.files), ("folder", account.folders)):
        if lower in there:
            raise refuse("path", {".tag": "conflict", "conflict": {".tag": kind}})
    account.folders[lower] = arg["path"]
    return {"metadata": account.folder_metadata(lower)}


def delete(account: Account, arg: Any, _: bytes) -> Any:
    """files/delete_v2"""
    return {"metadata": account.remove(arg["path"])}


def delete_batch(account: Account, arg: Any, _: bytes) -> Any:
    """files/delete_batch: done at once, told when asked the second time"""
    results = []
    for entry in arg["entries"]:
        try:
            results.append({".tag": "success", "metadata": account.remove(entry["path"])})
        except Refusal as refusal:
            results.append({".tag": "failure", "failure": refusal.error})
    name = f"job-{uuid4().hex}"
    account.jobs[name] = [{".tag": "in_progress"}, {".tag": "complete", "entries": results}]
    return {".tag": "async_job_id", "async_job_id": name}


def delete_batch_check(account: Account, arg: Any, _: bytes) -> Any:
    """files/delete_batch/check"""
    if arg["async_job_id"] not in account.jobs:
        raise refuse("invalid_async_job_id")
    states = account.jobs[arg["async_job_id"]]
    return states.pop(0) if len(states) > 1 else states[0]


def create_link(account: Account, arg: Any, _: bytes) -> Any:
    """sharing/create_shared_link_with_settings"""
    lower = fold(arg["path"])
    if lower not in account.files and lower not in account.folders:
        raise refuse("path", "not_found")
    if lower in account.links:
        raise refuse("shared_link_already_exists")
    account.links[lower] = f"https://www.dropbox.com/scl/fo/{uuid4().hex[:12]}?dl=0"
    return _link(account, lower)


def list_links(account: Account, arg: Any, _: bytes) -> Any:
    """sharing/list_shared_links"""
    path = fold(arg.get("path") or "")
    above = [] if arg.get("direct_only") else [name for name in account.links if path.startswith(f"{name}/")]
    names = [name for name in account.links if not path or name == path]
    return {"links": [_link(account, name) for name in (*names, *above)], "has_more": False}


def link_metadata(account: Account, arg: Any, _: bytes) -> Any:
    """sharing/get_shared_link_metadata"""
    found = [lower for lower, url in account.links.items() if url == arg["url"]]
    if not found:
        raise refuse("shared_link_not_found")
    return _link(account, found[0])


def space_usage(account: Account, arg: Any, _: bytes) -> Any:
    """users/get_space_usage"""
    return {"used": account.used, "allocation": {".tag": "individual", "allocated": account.quota}}


def current_account(account: Account, arg: Any, _: bytes) -> Any:
    """users/get_current_account"""
    name = {key: "x" for key in ("given_name", "surname", "familiar_name", "display_name", "abbreviated_name")}
    root = {".tag": "team", "root_namespace_id": account.root_namespace, "home_namespace_id": "8", "home_path": "/x"}
    return {
        "account_id": "dbid:" + "a" * 35, "name": name, "email": "x@example.com", "email_verified": True,
        "disabled": False, "locale": "en", "referral_link": "https://db.tt/x", "is_paired": False,
        "account_type": {".tag": "basic"}, "root_info": root,
    }  # fmt: skip


ROUTES: Mapping[str, tuple[str, Route]] = MappingProxyType(
    {
        "files/upload": ("files.content.write", upload),
        "files/upload_session/start": ("files.content.write", session_start),
        "files/upload_session/start_batch": ("files.content.write", session_start_batch),
        "files/upload_session/append_v2": ("files.content.write", session_append),
        "files/upload_session/append_batch": ("files.content.write", session_append_batch),
        "files/upload_session/finish": ("files.content.write", session_finish),
        "files/upload_session/finish_batch_v2": ("files.content.write", session_finish_batch),
        "files/download": ("files.content.read", download),
        "files/get_metadata": ("files.metadata.read", get_metadata),
        "files/list_folder": ("files.metadata.read", list_folder),
        "files/list_folder/continue": ("files.metadata.read", list_folder_continue),
        "files/create_folder_v2": ("files.content.write", create_folder),
        "files/delete_v2": ("files.content.write", delete),
        "files/delete_batch": ("files.content.write", delete_batch),
        "files/delete_batch/check": ("files.content.write", delete_batch_check),
        "sharing/create_shared_link_with_settings": ("sharing.write", create_link),
        "sharing/list_shared_links": ("sharing.read", list_links),
        "sharing/get_shared_link_metadata": ("sharing.read", link_metadata),
        "users/get_space_usage": ("account_info.read", space_usage),
        "users/get_current_account": ("account_info.read", current_account),
    }
)


def _check_hash(arg: Any, data: bytes) -> None:
    if len(data) > REQUEST_LIMIT_BYTES:
        raise refuse("payload_too_large")
    if arg.get("content_hash") not in (None, content_hash(data)):
        raise refuse("content_hash_mismatch")


def _finish(account: Account, arg: Any, data: bytes) -> Any:
    try:
        told = account.commit(arg["commit"], data).metadata()
    except Refusal as refusal:
        raise refuse("path", refusal.error) from refusal
    del account.sessions[arg["cursor"]["session_id"]]
    return told


def _finish_entry(account: Account, entry: Any) -> Any:
    session = account.sessions.get(entry["cursor"]["session_id"])
    try:
        if session is None:
            raise refuse("lookup_failed", "not_found")
        if not session.is_closed:
            raise refuse("lookup_failed", "not_closed")
        if entry["cursor"]["offset"] != len(session.data):
            raise refuse("lookup_failed", {".tag": "incorrect_offset", "correct_offset": len(session.data)})
        return _finish(account, entry, bytes(session.data)) | {".tag": "success"}
    except Refusal as refusal:
        return {".tag": "failure", "failure": refusal.error}


def _page(account: Account, told: list[dict[str, Any]], limit: int) -> Any:
    cursor = f"cursor-{uuid4().hex}"
    account.cursors[cursor] = told[limit:]
    return {"entries": told[:limit], "cursor": cursor, "has_more": len(told) > limit}


def _link(account: Account, lower: str) -> Any:
    rights = (
        "can_revoke", "can_set_expiry", "can_remove_expiry", "allow_download", "can_allow_download",
        "can_disallow_download", "allow_comments",
    )  # fmt: skip
    allowed = dict.fromkeys(rights, True) | {"team_restricts_comments": False, "visibility_policies": []}
    about = account.files[lower].metadata() if lower in account.files else account.folder_metadata(lower)
    about.pop("path_display")
    return about | {"url": account.links[lower], "link_permissions": allowed}
