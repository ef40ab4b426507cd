"""Azurite, the Azure server of the slow lane, with real signatures, blocks and conditions."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from blocks.azure import EMULATOR_KEY

ACCOUNT = "devstoreaccount1"
START_ATTEMPTS = 600
AZURITE = Path(__file__).resolve().parents[3] / ".azurite/node_modules/.bin/azurite-blob"


def connection_string(port: int, key: str = EMULATOR_KEY) -> str:
    """How clients are told of a server on this machine."""
    address = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={address};"


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[int]:
    """A blob service that checks signatures, digests and conditions; answers with its port."""
    node = shutil.which("node")
    assert node, "Node.js is missing: install nodejs and npm, then run `make test-all`"
    assert AZURITE.exists(), "Azurite is missing: `make test-all` installs it"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        node, str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(port),
        "--inMemoryPersistence", "--extentMemoryLimit", "1024", "--silent", "--disableTelemetry",
        "--skipApiVersionCheck",
    ]  # fmt: skip
    with (folder / "azurite.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        _await_port(process, port, folder / "azurite.log")
        yield port
    finally:
        process.kill()  # it holds everything in memory
        process.wait(30)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(START_ATTEMPTS):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise AssertionError(f"Azurite did not answer: {log.read_text(errors='replace')[-2000:]}")
