"""Publishing to Azure Blob Storage, with a key, a SAS, a connection string, or the identity of the machine."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from blocks.parts.kept import KeptDestination, hidden
from blocks.parts.labels import metadata_of
from flowtuner.errors import Fault, PublishError
from flowtuner.publishing.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from blocks.parts.container import ContainerStore

MIB = 1 << 20
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 10, 60, 5
# A probe answers a person who waits; the flow's own retries are for what takes longer.
PROBE_CONNECT_TIMEOUT_S, PROBE_READ_TIMEOUT_S, PROBE_ATTEMPTS = 3, 5, 2
CHUNK_BYTES = 4 * MIB
CLOUD = "core.windows.net"
EMULATOR = "http://127.0.0.1:10000/devstoreaccount1"
EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}|\$root|\$web")
BLOB_HOST = re.compile(r"([a-z0-9]{3,24})(?:-[a-z0-9]+)*\.blob\..+")


class AzureDestination(KeptDestination):
    """A container that keeps checkpoints and releases, each proved by its manifest.

    Example:
        ```python
        from blocks.azure import AzureDestination

        destination = AzureDestination.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Flowtuner Azure Blob"
    _block_type_slug = "flowtuner-azure-blob"
    _description = "Publishes checkpoints and releases to a container of Azure Blob Storage."

    provider: ClassVar[str] = "azure_blob"
    aliases: ClassVar[tuple[str, ...]] = ("azure",)
    spellings: ClassVar[Mapping[str, str]] = MappingProxyType({"container_name": "container"})
    secret_keys: ClassVar[frozenset[str]] = frozenset({"connection_string", "account_key", "sas_token"})

    container: str = Field(description="The container; made before training if it is not there and may be made.")
    connection_string: SecretStr | None = Field(None, description="Connection string, as the portal shows it.")
    account_name: str | None = Field(None, description="Name of the storage account.")
    account_url: str | None = Field(
        None, description="Address of the account, if it is not https://NAME.blob.core.windows.net."
    )
    account_key: SecretStr | None = Field(
        None, description="One of the account's keys; without key, SAS and connection string, this machine's identity."
    )
    sas_token: SecretStr | None = Field(None, description="Shared access signature for the container or account.")
    block_mib: int = Field(8, ge=1, le=4000, description="Size of the blocks in which larger files are sent, in MiB.")
    access_tier: Literal["Hot", "Cool", "Cold"] | None = Field(
        None, description="Access tier of the blobs, if not the account's default."
    )

    @field_validator("container")
    @classmethod
    def _check_container(cls, value: str) -> str:
        name = value.strip()
        if "/" in name:
            raise ValueError("a container has no '/' in its name: what follows belongs into base_path")
        if not CONTAINER_NAME.fullmatch(name):
            raise ValueError("a container's name has 3 to 63 small letters, digits and single hyphens")
        return name

    @field_validator("account_url", "public_base_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        url = urlsplit(value.strip()) if value else None
        if url is None or value is None:
            return None
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be an address such as https://NAME.blob.core.windows.net")
        return value.strip().rstrip("/")

    @field_validator("account_name")
    @classmethod
    def _check_account_name(cls, value: str | None) -> str | None:
        name = (value or "").strip()
        if name and not re.fullmatch(r"[a-z0-9]{3,24}", name):
            raise ValueError("an account's name has 3 to 24 small letters and digits; addresses go into account_url")
        return name or None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.connection_string is not None:
            self._read_connection_string()
        elif not self.account_url and not self.account_name:
            raise ValueError("says of no account: give connection_string, account_name or account_url")
        if self.account_key is not None and "sig=" in self.account_key.get_secret_value():
            self.account_key, self.sas_token = None, self.account_key  # other programs take a SAS under this key
        if self.account_key is not None and self.sas_token is not None:
            raise ValueError("account_key and sas_token are two ways to sign in: give one of them")
        if self.account_key is not None:
            _check_key(self.account_key)
        if self.sas_token is not None and "sig" not in parse_qs(self.sas_token.get_secret_value().lstrip("?")):
            raise ValueError("sas_token has no signature in it: copy all of it, from ?sv= on")
        if self.account_url is None:
            self.account_url = f"https://{self.account_name}.blob.{CLOUD}"
        self.account_name = self.account_name or _account_in(self.account_url)
        if self.account_key is not None and not self.account_name:
            raise ValueError("account_key needs the account's name, which is not in account_url: give account_name")
        if not self._has_secret() and self.account_url.startswith("http:"):
            raise ValueError("signing in with this machine's identity needs https: correct account_url")
        account = self.account_name or urlsplit(self.account_url).netloc
        place = f"{account}/{self.container}" + (f"/{self.base_path}" if self.base_path else "")
        self.name = self.name or f"{self.provider}:{place}"
        return self

    def _read_connection_string(self) -> None:
        assert self.connection_string is not None
        parts = _parts_of(self.connection_string.get_secret_value())
        url, name = parts.get("blobendpoint"), parts.get("accountname")
        if not url and not name:
            raise ValueError(
                "connection_string names no account: it looks like "
                "DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net"
            )
        if self.account_key or self.sas_token:
            raise ValueError("connection_string has credentials of its own: leave out account_key and sas_token")
        if name and self.account_name not in (None, name):
            raise ValueError("account_name is not the account of connection_string: leave it out")
        scheme, suffix = parts.get("defaultendpointsprotocol", "https"), parts.get("endpointsuffix", CLOUD)
        found = (url or f"{scheme}://{name}.blob.{suffix}").rstrip("/")
        if self.account_url not in (None, found):
            raise ValueError("account_url is not the address of connection_string: leave it out")
        self.account_url, self.account_name = found, name or self.account_name
        if not parts.get("accountkey") and not parts.get("sharedaccesssignature"):
            raise ValueError("connection_string has no AccountKey and no SharedAccessSignature in it")

    @classmethod
    def _settings_of(cls, entry: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], list[Fault]]:
        settings, faults = super()._settings_of(entry, origin)
        if urlsplit(str(settings.get("account_url") or "")).query:
            hint = "give it as sas_token"
            faults.append(Fault("account_url", None, origin, "has a SAS behind the address", suggestion=hint))
        return settings, faults

    @classmethod
    def entry_of_uri(cls, uri: str) -> dict[str, Any] | None:
        """An entry without credentials whose destination can follow a URI; None if the URI is of another kind."""
        url = urlsplit(uri)
        parts = [unquote(part) for part in url.path.split("/") if part]
        if url.scheme.lower() != "https" or not BLOB_HOST.fullmatch(url.netloc.lower()) or not parts:
            return None
        return {"provider": cls.provider, "account_url": f"https://{url.netloc.lower()}", "container": parts[0]}

    def _identity(self) -> tuple[str, ...]:
        return ("container", "account_url", "account_name")

    def _base_uri(self) -> str:
        return f"{self.account_url}/{quote(self.container)}"

    def _open_store(self, manifest: Manifest | None = None) -> ContainerStore:
        return self._open(manifest, CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS)

    def probe(self, output_dir: Path | None = None) -> None:
        """Proves write access as all do, in a container that is made if need be."""
        with self._translated(), self._open_probe_store() as store:
            store.make_container()
        super().probe(output_dir)

    def _open_probe_store(self) -> ContainerStore:
        return self._open(None, PROBE_CONNECT_TIMEOUT_S, PROBE_READ_TIMEOUT_S, PROBE_ATTEMPTS)

    def _open(
        self, manifest: Manifest | None, connect_timeout_s: int, read_timeout_s: int, attempts: int
    ) -> ContainerStore:
        from azure.storage.blob import ContainerClient

        from blocks.parts.azure_express import open_lane
        from blocks.parts.azure_retry import Patience
        from blocks.parts.container import ContainerStore, Terms

        given_up, credential = threading.Event(), self._credential()
        client = ContainerClient(
            str(self.account_url),
            self.container,
            credential=credential,
            connection_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            retry_policy=Patience(attempts, given_up),
            max_single_put_size=8 * MIB,
            max_single_get_size=CHUNK_BYTES,
            max_chunk_get_size=CHUNK_BYTES,
            connection_data_block_size=MIB,
        )
        metadata = metadata_of(manifest, "_") if manifest else {}
        crc32 = manifest.crc32 if manifest else {}
        terms = Terms(self.base_path, self.block_mib * MIB, self.access_tier, metadata, crc32)
        lane = open_lane(f"{self.account_url}/{self.container}", credential, read_timeout_s)
        return ContainerStore(client, terms, given_up, lane)

    def _credential(self) -> Any:
        from azure.core.credentials import AzureSasCredential

        secrets = self._secrets()
        if "key" in secrets:
            return {"account_name": str(self.account_name), "account_key": secrets["key"]}
        if "sas" in secrets:
            return AzureSasCredential(secrets["sas"].lstrip("?"))
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as error:
            raise PublishError(
                f'{self.name}: signing in with this machine\'s identity needs `pip install "flowtuner[azure]"`. '
                "Or give connection_string, account_key or sas_token."
            ) from error
        return DefaultAzureCredential()

    def _secrets(self) -> dict[str, str]:
        parts = _parts_of(self.connection_string.get_secret_value()) if self.connection_string else {}
        key = self.account_key.get_secret_value() if self.account_key else parts.get("accountkey")
        sas = self.sas_token.get_secret_value() if self.sas_token else parts.get("sharedaccesssignature")
        return {name: value for name, value in (("key", key), ("sas", sas)) if value}

    def _sas_end(self) -> str:
        found = parse_qs(self._secrets().get("sas", "")).get("se", [""])
        return found[0]

    def _has_secret(self) -> bool:
        return any(getattr(self, key) is not None for key in self.secret_keys)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from azure.core.exceptions import AzureError, DeserializationError

        from blocks.parts.azure_errors import translate

        try:
            yield
        except (AzureError, DeserializationError) as error:
            told = translate(error, self.name, self.container, self._sas_end())
            shown = hidden(str(told), {key: getattr(self, key) for key in self.secret_keys} | self._secrets())
            # Requests that failed carry the SAS in their address: the original must not stand in the log.
            raise type(told)(re.sub(r"\bsig=[^&\s]+", "sig=***", shown)) from None
        except OSError as error:
            raise PublishError(f"{self.name}: {error.strerror or error}: {error.filename}. Check the disk.") from error


def _parts_of(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.strip().split(";") if "=" in pair)
    parts = {key.strip().lower(): value.strip() for key, _, value in pairs}
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        return {"accountname": "devstoreaccount1", "accountkey": EMULATOR_KEY, "blobendpoint": EMULATOR} | parts
    return parts


def _check_key(key: SecretStr) -> None:
    try:
        base64.b64decode(key.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("account_key is not a key of an account: copy all of it, up to the ==") from None


def _account_in(url: str) -> str | None:
    address = urlsplit(url)
    found = BLOB_HOST.fullmatch(address.netloc.lower())
    return found[1] if found else address.path.strip("/") or None  # emulators have it in the path
