"""Publishing to S3 and what speaks its language: Backblaze B2, Cloudflare R2, MinIO, SeaweedFS and others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import quote, unquote, urlsplit

from prefect.types import SecretDict
from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks.parts.bucket import BucketStore, Terms
from blocks.parts.kept import KeptDestination, hidden
from blocks.parts.labels import metadata_of
from blocks.parts.s3_errors import translate
from flowtuner.errors import Fault, PublishError
from flowtuner.publishing.manifest import Manifest

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.client import BaseClient

    from blocks.parts.express import Lane

B2_NAMES = ("backblaze_b2", "b2")
MIB = 1 << 20
CONNECTIONS = 16
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 10, 60, 5
# A probe answers a person who waits; the flow's own retries are for what takes longer.
PROBE_CONNECT_TIMEOUT_S, PROBE_READ_TIMEOUT_S, PROBE_ATTEMPTS = 3, 5, 2


class S3Destination(KeptDestination):
    """A bucket that keeps checkpoints and releases, each proved by its manifest.

    Example:
        ```python
        from blocks.s3 import S3Destination

        destination = S3Destination.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Flowtuner S3"
    _block_type_slug = "flowtuner-s3"
    _description = "Publishes checkpoints and releases to S3 or a storage that speaks its language."

    provider: ClassVar[str] = "s3"
    aliases: ClassVar[tuple[str, ...]] = ("s3-compatible", *B2_NAMES)
    spellings: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "aws_access_key_id": "access_key",
            "aws_secret_access_key": "secret_key",
            "aws_session_token": "session_token",
            "region_name": "region",
        }
    )
    secret_keys: ClassVar[frozenset[str]] = frozenset({"access_key", "secret_key", "session_token", "request_headers"})

    bucket: str = Field(min_length=1, description="The bucket; it must exist.")
    access_key: SecretStr | None = Field(
        None, description="Access key id; without one AWS's own chain is asked: environment, profile, role."
    )
    secret_key: SecretStr | None = Field(None, description="Secret access key.")
    session_token: SecretStr | None = Field(None, description="Session token of temporary credentials.")
    profile: str | None = Field(None, description="Profile in ~/.aws to take credentials and region from.")
    region: str | None = Field(None, description="Region of the bucket.")
    endpoint_url: str | None = Field(None, description="Address of a storage that is not AWS: https://...")
    use_ssl: bool = Field(True, description="Whether AWS is spoken to over https; an endpoint_url says it itself.")
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Whether the bucket stands in the path or the host name; auto: path for an endpoint_url."
    )
    request_headers: SecretDict | None = Field(
        None, description="Headers that every request carries and its signature covers."
    )
    checksums: Literal["auto", "when_supported", "when_required"] = Field(
        "auto",
        description="Whether uploads carry x-amz-checksum headers. when_required: Content-MD5 instead, for storages "
        "that refuse them. auto: when_required for Backblaze B2.",
    )
    part_mib: int = Field(64, ge=5, le=5120, description="Size of the parts in which larger files are sent, in MiB.")
    force_single_part: bool = Field(False, description="Sends every file in one request, whatever its size.")
    storage_class: str | None = Field(None, description="Storage class of the objects, such as STANDARD_IA.")
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        None, description="How the storage encrypts the objects."
    )
    kms_key_id: str | None = Field(None, description="The key for aws:kms, if not the account's default.")

    # Reading what botocore knows of S3 takes a tenth of a second, once per session.
    _session: Session | None = PrivateAttr(None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @field_validator("bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        name = value.strip()
        if "/" in name and not name.startswith("arn:"):
            raise ValueError("a bucket has no '/' in its name: what follows belongs into base_path")
        return name

    @field_validator("endpoint_url", "public_base_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        url = urlsplit(value.strip()) if value else None
        if url is None or value is None:
            return None
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be an address such as https://host")
        return value.strip().rstrip("/")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key belong together: give both, or none for AWS's own chain")
        if self.session_token is not None and self.access_key is None:
            raise ValueError("session_token goes with access_key and secret_key: give them too")
        if self.kms_key_id and not (self.server_side_encryption or "").startswith("aws:kms"):
            raise ValueError('kms_key_id goes with "server_side_encryption": "aws:kms"')
        self.name = self.name or f"{self.provider}:{self.bucket}" + (f"/{self.base_path}" if self.base_path else "")
        return self

    @classmethod
    def _settings_of(cls, entry: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], list[Fault]]:
        settings, faults = super()._settings_of(entry, origin)
        faults = [*faults, *_find_userinfo(settings, origin)]
        wanted = str(entry.get("provider") or entry.get("type") or "").strip().lower()
        if wanted in B2_NAMES and "block" not in entry:
            settings.setdefault("checksums", "when_required")
            if not settings.get("endpoint_url"):
                hint = 'give the one that Backblaze shows for the bucket: "https://s3.REGION.backblazeb2.com"'
                faults.append(Fault("endpoint_url", None, origin, "is required for Backblaze B2", suggestion=hint))
        return settings, faults

    @classmethod
    def entry_of_uri(cls, uri: str) -> dict[str, Any] | None:
        """An entry without credentials whose destination can follow a URI; None if the URI is of another kind."""
        url = urlsplit(uri)
        if url.scheme.lower() != "s3" or not url.netloc:
            return None
        return {"provider": cls.provider, "bucket": unquote(url.netloc)}

    def _identity(self) -> tuple[str, ...]:
        return ("bucket", "endpoint_url", "profile", "access_key")

    def _base_uri(self) -> str:
        if self.endpoint_url:
            return f"{self.endpoint_url}/{quote(self.bucket)}"
        return f"s3://{quote(self.bucket, safe=':')}"

    def _other_uris(self) -> Iterable[str]:
        return [f"{scheme}://{quote(self.bucket, safe=':')}" for scheme in ("s3", "r2", "b2")]

    def _open_store(self, manifest: Manifest | None = None) -> BucketStore:
        return self._open(manifest, CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS)

    def _open_probe_store(self) -> BucketStore:
        return self._open(None, PROBE_CONNECT_TIMEOUT_S, PROBE_READ_TIMEOUT_S, PROBE_ATTEMPTS)

    def _open(
        self, manifest: Manifest | None, connect_timeout_s: int, read_timeout_s: int, attempts: int
    ) -> BucketStore:
        encryption = {"ServerSideEncryption": self.server_side_encryption, "SSEKMSKeyId": self.kms_key_id}
        stored = {"StorageClass": self.storage_class} | encryption
        terms = Terms(
            bucket=self.bucket,
            root=self.base_path,
            part_bytes=self.part_mib * MIB,
            is_single_part=self.force_single_part,
            has_checksums=self._checksums() == "when_supported",
            arguments={key: value for key, value in stored.items() if value},
            metadata=metadata_of(manifest) if manifest else {},
            crc32=manifest.crc32 if manifest else {},
        )
        client = self._connect(connect_timeout_s, read_timeout_s, attempts)
        return BucketStore(client, terms, lambda: self._open_lane(client, read_timeout_s))

    def _open_lane(self, client: BaseClient, timeout_s: int) -> Lane | None:
        from blocks.parts.s3_express import open_lane

        credentials = self._session.get_credentials() if self._session else None
        # Directory buckets and access points have ways of signing of their own.
        if credentials is None or self.bucket.startswith("arn:") or self.bucket.endswith("--x-s3"):
            return None
        headers = self.request_headers.get_secret_value() if self.request_headers else {}
        more = {name.lower(): str(value) for name, value in headers.items()}
        return open_lane(client, self.bucket, credentials.get_frozen_credentials, more, timeout_s)

    def _connect(self, connect_timeout_s: int, read_timeout_s: int, attempts: int) -> BaseClient:
        from botocore.config import Config

        style = self.addressing_style
        if style == "auto" and self.endpoint_url:
            style = "path"  # a host name per bucket needs a DNS entry per bucket, which few set up
        config = Config(
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=CONNECTIONS,
            signature_version="s3v4",
            # Over https the checksums protect the bytes; hashing them once more to sign them would take twice the time.
            s3={"addressing_style": style} | ({"payload_signing_enabled": False} if self._has_tls() else {}),
            request_checksum_calculation=self._checksums(),
            response_checksum_validation=self._checksums(),
        )
        with self._lock:  # making clients is not safe among threads, using them is
            self._session = self._session or self._open_session()
            client = self._session.client("s3", endpoint_url=self.endpoint_url, use_ssl=self.use_ssl, config=config)
        client.meta.events.register("before-sign.s3", self._add_headers)
        return client

    def _open_session(self) -> Session:
        from boto3.session import Session

        return Session(
            aws_access_key_id=_reveal(self.access_key),
            aws_secret_access_key=_reveal(self.secret_key),
            aws_session_token=_reveal(self.session_token),
            region_name=self.region,
            profile_name=self.profile,
        )

    def _add_headers(self, request: Any, **_: Any) -> None:
        for name, value in (self.request_headers.get_secret_value() if self.request_headers else {}).items():
            del request.headers[name]  # a request that is tried again has them already
            request.headers[name] = str(value)

    def _has_tls(self) -> bool:
        return self.endpoint_url.startswith("https:") if self.endpoint_url else self.use_ssl

    def _checksums(self) -> str:
        if self.checksums != "auto":
            return self.checksums
        host = urlsplit(self.endpoint_url or "").hostname or ""
        return "when_required" if host.endswith(".backblazeb2.com") else "when_supported"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            told = translate(error, self.name, self.bucket)
            shown = hidden(str(told), {key: getattr(self, key) for key in self.secret_keys})
            # A storage may quote the key that it refuses: then the original must not stand in the log either.
            raise type(told)(shown) from (error if shown == str(told) else None)
        except OSError as error:
            raise PublishError(f"{self.name}: {error.strerror or error}: {error.filename}. Check the disk.") from error


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _find_userinfo(settings: Mapping[str, Any], origin: str) -> list[Fault]:
    return [
        Fault(key, None, origin, "has a user or password in it", suggestion="use access_key and secret_key instead")
        for key in ("endpoint_url", "public_base_url")
        if "@" in urlsplit(str(settings.get(key) or "")).netloc
    ]
