"""The providers of the fault matrix: for each its server, its kinds of requests, and its way of refusing.

A provider joins with a class here and a line in `PROVIDERS`; `test_fault_matrix.py` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

import pytest
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

from blocks.azure import EMULATOR_KEY, AzureDestination
from blocks.s3 import S3Destination
from flowtuner.publishing.destination import Destination
from tests.fakes.azure.servers import ACCOUNT
from tests.fakes.faultproxy import Rule
from tests.fakes.s3.servers import KEYS, RENEWED_KEYS


@dataclass(frozen=True)
class Kind:
    """A kind of request: its method and what its path looks like."""

    method: str
    path: str


class Faulted(Protocol):
    """A provider whose requests are broken; the destination it opens keeps everything below `BASE_PATH`."""

    kinds: Mapping[str, Kind]
    port: int

    def open(self, url: str, *, is_renewed: bool = False) -> Destination:
        """A destination at a proxy, with its first credential or with the one that replaced it."""

    def refusal(self, *, is_expired: bool) -> Rule:
        """How requests with the first credential are refused once it has expired or was revoked."""

    def contents(self) -> dict[str, bytes]:
        """Everything that stands there, past the proxy."""

    def unfinished(self) -> int:
        """How many uploads were begun there and never came to their end."""


class FaultedS3:
    """S3 on SeaweedFS."""

    kinds: Mapping[str, Kind] = MappingProxyType(
        {
            "read the manifest": Kind("GET", "manifest.json"),
            "list": Kind("GET", "list-type"),
            "find uploads": Kind("GET", r"\?uploads"),
            "begin an upload": Kind("POST", r"\?uploads"),
            "send a part": Kind("PUT", "partNumber"),
            "complete": Kind("POST", "uploadId"),
            "look at the object": Kind("HEAD", "weights"),
            "send a small file": Kind("PUT", "state"),
            "write the manifest": Kind("PUT", "manifest.json"),
            "delete": Kind("DELETE", ""),
        }
    )

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._client: Any = request.getfixturevalue("weed")
        self.port: int = request.getfixturevalue("weed_port")
        self._destinations: dict[bool, S3Destination] = {}

    def open(self, url: str, *, is_renewed: bool = False) -> Destination:
        """A destination; each of its publishings opens connections and looks at what is there anew."""
        keys: Mapping[str, Any] = RENEWED_KEYS if is_renewed else KEYS
        fresh = S3Destination(bucket="models", endpoint_url=url, region="us-east-1", part_mib=5, **keys)
        return self._destinations.setdefault(is_renewed, fresh)  # what botocore has read of S3 is worth keeping

    def refusal(self, *, is_expired: bool) -> Rule:
        """The answer to a key that is no longer good."""
        code = "ExpiredToken" if is_expired else "InvalidAccessKeyId"
        body = f"<Error><Code>{code}</Code><Message>no longer</Message></Error>"
        return Rule("status", carries=KEYS["access_key"], code=400 if is_expired else 403, body=body, times=999)

    def contents(self) -> dict[str, bytes]:
        """All objects."""
        listed = self._client.list_objects_v2(Bucket="models").get("Contents", ())
        return {
            item["Key"]: self._client.get_object(Bucket="models", Key=item["Key"])["Body"].read() for item in listed
        }

    def unfinished(self) -> int:
        """All multipart uploads."""
        return len(self._client.list_multipart_uploads(Bucket="models").get("Uploads", ()))


class FaultedAzure:
    """Azure on Azurite, signed in with shared access signatures."""

    kinds: Mapping[str, Kind] = MappingProxyType(
        {
            "read the manifest": Kind("GET", "manifest.json"),
            "list": Kind("GET", "comp=list"),
            "find blocks": Kind("GET", "blocklisttype=uncommitted"),
            "send a block": Kind("PUT", "comp=block&"),
            "commit": Kind("PUT", "comp=blocklist"),
            "read the blocks back": Kind("GET", "blocklisttype=committed"),
            "send a small file": Kind("PUT", "state"),
            "write the manifest": Kind("PUT", "manifest.json"),
            "delete": Kind("DELETE", ""),
        }
    )

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.port: int = request.getfixturevalue("azurite_port")
        self._client: ContainerClient = request.getfixturevalue("azure")
        permissions = ContainerSasPermissions(read=True, add=True, create=True, write=True, delete=True, list=True)
        self._first, self._second = (
            generate_container_sas(
                ACCOUNT, "models", EMULATOR_KEY, permission=permissions,
                expiry=datetime.now(UTC) + timedelta(hours=hours),
            )
            for hours in (24, 25)
        )  # fmt: skip

    def open(self, url: str, *, is_renewed: bool = False) -> Destination:
        """A destination; each of its publishings opens connections and looks at what is there anew."""
        sas: Any = self._second if is_renewed else self._first
        return AzureDestination(
            account_url=f"{url}/{ACCOUNT}", account_name=ACCOUNT, sas_token=sas, container="models", block_mib=1
        )

    def refusal(self, *, is_expired: bool) -> Rule:
        """The answer to a signature that is no longer good."""
        why = "Signature not valid in the specified time frame" if is_expired else "Signature did not match"
        body = f"<Error><Code>AuthenticationFailed</Code><Message>Failed.</Message><Why>{why}</Why></Error>"
        headers = {"x-ms-error-code": "AuthenticationFailed", "Content-Type": "application/xml"}
        signature = self._first.partition("sig=")[2].partition("&")[0]
        return Rule("status", path=signature, code=403, headers=headers, body=body, times=999)

    def contents(self) -> dict[str, bytes]:
        """All blobs."""
        return {blob.name: self._client.download_blob(blob.name).readall() for blob in self._client.list_blobs()}

    def unfinished(self) -> int:
        """All blobs that consist of blocks that nobody has committed."""
        names = (blob.name for blob in self._client.list_blobs(include=["uncommittedblobs"]) if not blob.size)
        return sum(bool(self._client.get_blob_client(name).get_block_list("uncommitted")[1]) for name in names)


PROVIDERS: Mapping[str, type[FaultedS3] | type[FaultedAzure]] = MappingProxyType(
    {"s3": FaultedS3, "azure": FaultedAzure}
)
