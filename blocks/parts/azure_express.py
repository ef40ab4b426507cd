"""The signature of a small upload to Azure: by the account's key, by a SAS in the address, or by a token."""

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

    def sign(path: str, headers: dict[str, str], sha256: str) -> Mapping[str, str]:
        known = {"x-ms-version": VERSION, "x-ms-date": formatdate(usegmt=True), "x-ms-blob-type": "BlockBlob"}
        sent = {name.lower(): value for name, value in headers.items()} | known
        if isinstance(credential, Mapping):
            sent["authorization"] = _share(path, sent, credential["account_name"], credential["account_key"])
        elif not sas:
            sent["authorization"] = f"Bearer {credential.get_token(SCOPE).token}"
        return sent

    return Lane(base, sign, timeout_s, f"?{sas}" if sas else "")


def _share(path: str, headers: Mapping[str, str], account: str, key: str) -> str:
    shown = dict(headers)
    if shown.get("content-length") == "0":
        del shown["content-length"]
    own = "".join(f"{name}:{shown[name]}\n" for name in sorted(shown) if name.startswith("x-ms-"))
    lines = "\n".join(["PUT", *(shown.get(name, "") for name in SIGNED)])
    text = f"{lines}\n{own}/{account}{urlsplit(path).path}"
    proof = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
    return f"SharedKey {account}:{proof}"
