"""Publishing to Dropbox: files travel in upload sessions that survive an interruption, links are shared links."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks.parts.kept import KeptDestination, hidden
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.addresses import path_parts, split_place
from flowtuner.publishing.destination import Place, Progress, PublishResult
from flowtuner.publishing.manifest import Manifest
from flowtuner.publishing.snapshot import Snapshot

if TYPE_CHECKING:
    import requests

    from blocks.parts.dropbox_calls import Calls
    from blocks.parts.dropbox_store import DropboxStore

MIB = 1 << 20
SHORT_LIVED = "sl."
LINK_HOSTS = ("www.dropbox.com", "dropbox.com")
HOME, ROOT = "home", "root"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 10, 60, 6
# A probe answers a person who waits; the flow's own retries are for what takes longer.
PROBE_CONNECT_TIMEOUT_S, PROBE_READ_TIMEOUT_S, PROBE_ATTEMPTS = 3, 5, 2
FIRST_WAIT_S, LONGEST_ASKED_S, PROBE_LONGEST_ASKED_S = 1.0, 120.0, 3.0


class DropboxDestination(KeptDestination):
    """A folder of a Dropbox that keeps checkpoints and releases, each proved by its manifest.

    Example:
        ```python
        from blocks.dropbox import DropboxDestination

        destination = DropboxDestination.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Flowtuner Dropbox"
    _block_type_slug = "flowtuner-dropbox"
    _description = "Publishes checkpoints and releases to a folder of a Dropbox."

    provider: ClassVar[str] = "dropbox"
    spellings: ClassVar[Mapping[str, str]] = MappingProxyType({"access_token": "token"})
    secret_keys: ClassVar[frozenset[str]] = frozenset({"token", "refresh_token", "app_key", "app_secret"})

    token: SecretStr | None = Field(
        None, description="Access token; one that begins with `sl.` lives four hours, so runs need a refresh_token."
    )
    refresh_token: SecretStr | None = Field(
        None, description="Refresh token, from which access tokens are made as needed; goes with app_key."
    )
    app_key: SecretStr | None = Field(None, description="Key of the app that the refresh token was made for.")
    app_secret: SecretStr | None = Field(None, description="Secret of that app; tokens made with PKCE need none.")
    namespace: str = Field(
        HOME,
        min_length=1,
        description="Where base_path begins: home (the account's own folder), root (that of the team), or the id of a "
        "team folder.",
    )
    shared_link: bool = Field(
        True, description="Whether links are shared links, found or made; without, they are dropbox://..."
    )
    chunk_mib: int = Field(
        16, ge=4, le=148, multiple_of=4, description="Size of the requests in which larger files are sent, in MiB."
    )

    _client: Any = PrivateAttr(None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _has_explained: bool = PrivateAttr(False)

    @field_validator("token", "refresh_token", "app_key", "app_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value is not None else ""
        # What cannot stand in a header would be shown by whoever refuses it.
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("has characters that no token or key has: copy it again")
        return SecretStr(text) if text else None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.refresh_token is not None and self.app_key is None:
            raise ValueError("refresh_token goes with the app_key of the app that it was made for")
        if self.token is None and self.refresh_token is None:
            raise ValueError("token is required, or refresh_token with app_key")
        self.name = self.name or self.provider + (f":{self.base_path}" if self.base_path else "")
        return self

    def cautions(self) -> list[str]:
        """Says what may go wrong later although everything works now."""
        token = self.token.get_secret_value() if self.token is not None else ""
        if self.refresh_token is not None or not token.startswith(SHORT_LIVED):
            return []
        return [
            f"{self.name}: a token that begins with `{SHORT_LIVED}` lives four hours, and uploads after that fail. "
            "Give refresh_token and app_key, which renew themselves"
        ]

    def publish(self, snapshot: Snapshot, on_progress: Progress, keep: int = 0) -> PublishResult:
        """Uploads what is not there yet, proves that it arrived, writes the manifest last, and shares the folder."""
        result = super().publish(snapshot, on_progress, keep)
        if not self.shared_link or self.public_base_url:
            return result
        from blocks.parts.dropbox_links import share

        try:
            with self._translated(), self._open_store() as store:
                return replace(result, uri=share(store.calls, store.path(snapshot.manifest.prefix)))
        except (PublishError, DestinationDown) as error:
            return replace(result, notes=self._explain_once(error))

    def uri_of(self, manifest: Manifest) -> str | None:
        """Where people find a published unit: below the public URL, if there is one."""
        if self.public_base_url:
            return super().uri_of(manifest)
        return f"dropbox://{quote(f'{self.base_path}/{manifest.prefix}'.strip('/'))}"

    @classmethod
    def entry_of_uri(cls, uri: str) -> dict[str, Any] | None:
        """An entry without credentials whose destination can follow a URI; None if the URI is of another kind."""
        url = urlsplit(uri)
        is_ours = url.scheme.lower() == cls.provider or url.netloc.lower() in LINK_HOSTS
        return {"provider": cls.provider} if is_ours else None

    def follow(self, uri: str) -> tuple[Self, Place] | None:
        """This destination, at the base path that a URI means, and what is named there; None if it leads elsewhere."""
        url = urlsplit(uri)
        if url.netloc.lower() in LINK_HOSTS:
            from blocks.parts.dropbox_links import path_of_link

            with self._translated(), self._open_store() as store:
                parts = path_parts(path_of_link(store.calls, uri) or "")
        elif url.scheme.lower() == self.provider:
            parts = path_parts(f"/{url.netloc}{url.path}")
        else:
            return super().follow(uri)
        found = split_place(parts)
        return (self.model_copy(update={"base_path": found[0]}), found[1]) if found else None

    def _explain_once(self, error: Exception) -> tuple[str, ...]:
        if self._has_explained:
            return ()
        self._has_explained = True
        return (f"{error} Everything is there, but without a shared link; set shared_link to false to do without.",)

    def _identity(self) -> tuple[str, ...]:
        return ("namespace", "app_key")

    def _base_uri(self) -> str:
        return "dropbox:/"

    def _open_store(self, manifest: Manifest | None = None) -> DropboxStore:
        calls = self._open_calls(CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS, LONGEST_ASKED_S)
        return self._store_on(calls, manifest.prefix if manifest else "")

    def _open_probe_store(self) -> DropboxStore:
        calls = self._open_calls(PROBE_CONNECT_TIMEOUT_S, PROBE_READ_TIMEOUT_S, PROBE_ATTEMPTS, PROBE_LONGEST_ASKED_S)
        return self._store_on(calls, "")

    def _store_on(self, calls: Calls, unit: str) -> DropboxStore:
        from blocks.parts.dropbox_store import DropboxStore

        root = f"/{self.base_path}" if self.base_path else ""
        return DropboxStore(calls, root, self.name, self.chunk_mib * MIB, unit)

    def _open_calls(self, connect_timeout_s: int, read_timeout_s: int, attempts: int, longest_asked_s: float) -> Calls:
        from blocks.parts.dropbox_calls import Calls, Patience

        patience = Patience(attempts, FIRST_WAIT_S, longest_asked_s=longest_asked_s)
        with self._translated(), self._lock:
            self._client = self._client or self._make_client()
            calls = Calls(self._client, patience)
            # Here, so that all clones share the token that a refresh gives.
            calls("check_and_refresh_access_token")
            timeout = (connect_timeout_s, read_timeout_s)
            client = self._client.clone(session=_new_session(), timeout=timeout)
            return Calls(self._at_root(Calls(client, patience)), patience)

    def _make_client(self) -> Any:
        from dropbox import Dropbox

        return Dropbox(
            oauth2_access_token=_reveal(self.token),
            oauth2_refresh_token=_reveal(self.refresh_token),
            app_key=_reveal(self.app_key),
            app_secret=_reveal(self.app_secret),
            session=_new_session(),
            timeout=(PROBE_CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            # Waiting is ours: the SDK would wait for ever when asked to, and try no broken line again.
            max_retries_on_error=0,
            max_retries_on_rate_limit=0,
        )

    def _at_root(self, calls: Calls) -> Any:
        from dropbox.common import PathRoot

        if self.namespace == HOME:
            return calls.client
        if self.namespace != ROOT:
            return calls.client.with_path_root(PathRoot.namespace_id(self.namespace))
        account = calls("users_get_current_account")
        return calls.client.with_path_root(PathRoot.root(account.root_info.root_namespace_id))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from blocks.parts.dropbox_errors import RAISED, translate

        try:
            yield
        except RAISED as error:
            told = translate(error, self.name)
            if not isinstance(told, DestinationDown):
                self._client = None  # the token that it holds may be what is wrong: the next attempt makes a new one
            shown = hidden(str(told), {key: getattr(self, key) for key in self.secret_keys})
            raise type(told)(shown) from (error if shown == str(told) else None)
        except OSError as error:
            raise PublishError(f"{self.name}: {error.strerror or error}: {error.filename}. Check the disk.") from error


def open_session() -> requests.Session:
    """The connections of one client."""
    from dropbox import create_session

    session: requests.Session = create_session()
    return session


def _new_session() -> requests.Session:
    session = open_session()
    session.hooks["response"].append(_read_refusal)
    return session


def _read_refusal(response: requests.Response, **_: Any) -> None:
    # The SDK leaves what it refuses to read half open, and its connection with it.
    if response.status_code >= 400:
        response.content  # noqa: B018


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
