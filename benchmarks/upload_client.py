"""One upload by one client in a process of its own: prints its seconds and its peak of memory.

`python -m benchmarks.upload_client CLIENT URL FOLDER`; AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE name whom it trusts.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flowtuner.publishing.destination import Destination
from flowtuner.publishing.snapshot import checkpoint_unit, freeze, thaw

KEY = "Zm9v"  # the server looks at no signature
BUCKET = "models"


def main() -> None:
    """Uploads a folder and tells how long it took."""
    client, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    upload = CLIENTS[client](url, folder)
    started, busy_before = time.perf_counter(), time.process_time()
    told = upload()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy_before
    print(json.dumps({"seconds": seconds, "busy": busy, "peak_mib": measure_peak_mib(), "told": told}))


def measure_peak_mib() -> float:
    """The most memory this program held; getrusage would count what its parent held before it began."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def connection_string(url: str) -> str:
    """How Azure's clients are told of the server."""
    return f"DefaultEndpointsProtocol=https;AccountName=bench;AccountKey={KEY};BlobEndpoint={url}/bench;"


def _open_s3(url: str, folder: Path) -> Callable[[], object]:
    from blocks.s3 import S3Destination

    keys = {"access_key": "a", "secret_key": "b"}
    return _ours(S3Destination(bucket=BUCKET, endpoint_url=url, region="us-east-1", **keys), folder)  # type: ignore[arg-type]


def _open_azure(url: str, folder: Path) -> Callable[[], object]:
    import azure.storage.blob  # noqa: F401 - the SDK comes with the process, as its own client brings it

    from blocks.azure import AzureDestination

    secret = {"connection_string": connection_string(url)}
    return _ours(AzureDestination(container=BUCKET, **secret), folder)  # type: ignore[arg-type]


def _ours(destination: Destination, folder: Path) -> Callable[[], object]:
    frozen = freeze(checkpoint_unit(folder, "bench", 1, {}))
    snapshot = frozen.seal()

    def upload() -> object:
        result = destination.publish(snapshot, lambda done, total: None)
        thaw(frozen)
        return result.sent_bytes

    return upload


def _open_boto3(url: str, folder: Path) -> Callable[[], object]:
    from boto3.session import Session

    client = Session("a", "b", region_name="us-east-1").client("s3", endpoint_url=url)
    return lambda: [client.upload_file(str(path), BUCKET, f"boto3/{path.name}") for path in _files(folder)] and None


def _open_sdk(url: str, folder: Path) -> Callable[[], object]:
    from azure.storage.blob import ContainerClient

    container = ContainerClient.from_connection_string(connection_string(url), BUCKET)

    def upload() -> object:
        for path in _files(folder):
            with path.open("rb") as file:
                container.upload_blob(f"sdk/{path.name}", file, overwrite=True)
        return None

    return upload


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


CLIENTS: dict[str, Callable[[str, Path], Callable[[], object]]] = {
    "s3": _open_s3,
    "azure": _open_azure,
    "boto3": _open_boto3,
    "sdk": _open_sdk,
}


if __name__ == "__main__":
    main()
