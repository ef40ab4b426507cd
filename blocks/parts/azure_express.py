"""Requests to Azure signed here: by the account's key, by a SAS in the address, or by a token."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from blocks.parts.express import Lane

VERSION = "2021-12-02"
SCOPE = "https://storage.azure.com/.default"
SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


def open_lane(base: str, credential: Any, timeout_s: float) -> Lane:
    """The way to a container with the credential that the SDK's client was given."""
    sas = getattr(credential, "signature", None)

    def authorise(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, str]:
        sent = {**headers, "x-ms-version": VERSION, "x-ms-date": formatdate(usegmt=True)}
        if isinstance(credential, Mapping):
            keys = credential["account_name"], credential["account_key"]
            sent["authorization"] = _share(method, path, query, sent, *keys)
        elif not sas:
            sent["authorization"] = f"Bearer {credential.get_token(SCOPE).token}"
        return sent

    def sign(path: str, headers: dict[str, str], sha256: str) -> Mapping[str, str]:
        named = {name.lower(): value for name, value in headers.items()}
        return authorise("PUT", path, {}, named | {"x-ms-blob-type": "BlockBlob"})

    def sign_query(query: Mapping[str, str]) -> Mapping[str, str]:
        return authorise("GET", urlsplit(base).path, query, {})

    return Lane(base, sign, timeout_s, sas or "", sign_query)


def _share(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], account: str, key: str) -> str:
    shown = dict(headers)
    if shown.get("content-length") == "0":
        del shown["content-length"]
    own = "".join(f"{name}:{shown[name]}\n" for name in sorted(shown) if name.startswith("x-ms-"))
    asked = "".join(f"\n{name}:{query[name]}" for name in sorted(query))
    lines = "\n".join([method, *(shown.get(name, "") for name in SIGNED)])
    text = f"{lines}\n{own}/{account}{urlsplit(path).path}{asked}"
    proof = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
    return f"SharedKey {account}:{proof}"
