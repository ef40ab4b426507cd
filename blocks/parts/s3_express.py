"""The signature of a small upload to S3 (AWS Signature Version 4), and the address that it goes to."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from blocks.parts.express import Lane


class Keys(Protocol):
    """Credentials as botocore hands them out, renewed where they expire."""

    access_key: str
    secret_key: str
    token: str | None


def open_lane(client: Any, bucket: str, keys: Callable[[], Keys], more: Mapping[str, str], timeout_s: float) -> Lane:
    """The way to a bucket; botocore knows its address and its region."""
    place, _, query = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "x"}).partition("?")
    region = parse_qs(query)["X-Amz-Credential"][0].split("/")[2]
    base = place.removesuffix("/x")
    host = urlsplit(base).netloc

    def sign(path: str, headers: dict[str, str], sha256: str) -> Mapping[str, str]:
        now = datetime.now(UTC)
        return sign_put(path, {**headers, **more, "host": host}, sha256, keys(), region, now)

    return Lane(base, sign, timeout_s)


def sign_put(
    path: str, headers: Mapping[str, str], sha256: str, keys: Keys, region: str, now: datetime
) -> Mapping[str, str]:
    """The headers of a PUT with its signature, which covers all of them and the body."""
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed |= {"x-amz-content-sha256": sha256, "x-amz-date": moment}
    if keys.token:
        signed["x-amz-security-token"] = keys.token
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = f"PUT\n{path}\n\n{lines}\n{names}\n{sha256}"
    scope = f"{day}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = _hmac(key, part)
    proof = f"Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={_hmac(key, text).hex()}"
    return signed | {"authorization": f"AWS4-HMAC-SHA256 {proof}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
