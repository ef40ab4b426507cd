"""A Dropbox on this machine for the official SDK: its transport, its token endpoint, and a session that leads there."""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from uuid import uuid4

import requests
from requests.adapters import HTTPAdapter

from tests.fakes.dropbox.account import Account, Refusal, StoredFile
from tests.fakes.dropbox.routes import ROUTES

API = "/2/"


class FakeDropbox:
    """Serves one account; context manager. With a certificate it speaks TLS, as a process of its own needs it."""

    def __init__(self, account: Account | None = None, certificate: Path | None = None) -> None:
        self._handler = type("Handler", (_Handler,), {"account": account or Account()})
        self._server = _Server(("127.0.0.1", 0), self._handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    @property
    def account(self) -> Account:
        """Whose requests are answered."""
        return self._handler.account

    def open(self, account: Account) -> None:
        """Serves another account from now on."""
        self._handler.account = account

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def session_to(port: int) -> requests.Session:
    """A session that finds Dropbox's hosts at a port of this machine; the SDK takes it as an argument."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", _Redirected(port))
    return session


class _Redirected(HTTPAdapter):
    def __init__(self, port: int) -> None:
        self._port = port
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        parts = urlsplit(request.url or "")
        request.url = urlunsplit(parts._replace(scheme="http", netloc=f"127.0.0.1:{self._port}"))
        return super().send(request, *args, **kwargs)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients that are cut off or killed are expected
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the second part of each answer waits 40 ms for an acknowledgement
    account: Account

    def do_POST(self) -> None:
        """Answers one request."""
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:  # a client that was cut off
            self.close_connection = True
            return
        route = self.path.removeprefix(API).lstrip("/")
        try:
            with self.account.lock:
                self.account.requests.append((route, len(body)))
                for hook in tuple(self.account.hooks):
                    hook(route)
                answer = self._refresh(body) if route == "oauth2/token" else self._serve(route, body)
        except Refusal as refusal:
            self._write(refusal.status, json.dumps(refusal.body()).encode(), refusal.headers)
            return
        if isinstance(answer, StoredFile):
            self._write_file(answer)
        else:
            self._write(200, json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the account remembers the requests."""

    def _serve(self, route: str, body: bytes) -> Any:
        if route not in ROUTES:
            raise Refusal(400, f"Unknown API function: {route!r}")
        scope, function = ROUTES[route]
        self.account.check_token((self.headers.get("Authorization") or "").removeprefix("Bearer "), scope)
        self.account.roots.append(self.headers.get("Dropbox-API-Path-Root"))
        said, data = self.headers.get("Dropbox-API-Arg"), body
        try:
            arg = json.loads(said if said is not None else body or b"null")
        except ValueError as error:
            raise Refusal(400, f'Error in call to API function "{route}": could not decode input as JSON') from error
        return function(self.account, arg, data)

    def _refresh(self, body: bytes) -> Any:
        form = dict(parse_qsl(body.decode()))
        asked = self.account.refresh_tokens.get(form.get("refresh_token", ""))
        if form.get("grant_type") != "refresh_token" or asked is None or asked[0] != form.get("client_id"):
            raise Refusal(400, "invalid_grant")
        if asked[1] is not None and asked[1] != form.get("client_secret"):
            raise Refusal(400, "invalid_client: Invalid client_id or client_secret")
        token = self.account.grant()
        known = self.account.tokens[token]
        lifetime = int((known.expires or 0) - self.account.clock())
        return {"access_token": token, "token_type": "bearer", "expires_in": lifetime}

    def _write_file(self, file: StoredFile) -> None:
        data, status, headers = file.data, 200, {"Dropbox-API-Result": json.dumps(file.metadata())}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            if start >= len(data):
                self._write(416, b"{}")
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        if self.account.cuts and len(data) > self.account.cuts[0]:
            headers["Content-Length"] = str(len(data))
            data, self.close_connection = data[: self.account.cuts.pop(0)], True
        self._write(status, data, headers, "application/octet-stream")

    def _write(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.send_header("X-Dropbox-Request-Id", uuid4().hex)
        self.end_headers()
        self.wfile.write(data)
