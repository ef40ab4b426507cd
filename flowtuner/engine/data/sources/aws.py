"""`type: aws`: a bucket of S3 or of what speaks its language, listed in pages and read object by object."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from flowtuner.engine.data.files import PICTURE_SUFFIXES, FoundFile
from flowtuner.engine.data.images import UnusableImageError
from flowtuner.engine.data.sample import Quarantined
from flowtuner.engine.data.sources.source import Source
from flowtuner.errors import FlowtunerError, SourceDown
from flowtuner.options import DatasetEntry, TrainingConfig

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

TIMEOUT_S = 30
ATTEMPTS = 5
PAGE = 1000
BLOCK_BYTES = 1 << 20
LARGEST_BYTES = 1 << 30
TOO_MANY, SERVER_FAULT, NOT_BUILT = 429, 500, 501
NOT_FOUND = ("NoSuchKey", "NotFound", "404")
CHECK_KEYS = "Check aws_access_key_id and aws_secret_access_key."
REMEDIES = MappingProxyType(
    {
        "InvalidAccessKeyId": CHECK_KEYS,
        "SignatureDoesNotMatch": CHECK_KEYS,
        "ExpiredToken": "The temporary credentials have expired: get new ones.",
        "AccessDenied": "Allow these credentials s3:ListBucket on the bucket and s3:GetObject on its objects.",
        "NoSuchBucket": "Correct aws_bucket_name or aws_endpoint_url.",
        "PermanentRedirect": "Set aws_region_name to the bucket's region.",
        "AuthorizationHeaderMalformed": "Set aws_region_name to the bucket's region.",
        "RequestTimeTooSkewed": "Set this machine's clock.",
        "401": CHECK_KEYS,
        "403": "Allow these credentials s3:ListBucket on the bucket and s3:GetObject on its objects.",
        "404": "Correct aws_bucket_name or aws_endpoint_url.",
    }
)
PASSING = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded")

T = TypeVar("T")


def open_source(entry: DatasetEntry, config: TrainingConfig, index_dir: Path) -> AwsSource:
    """The bucket that `aws_bucket_name` names, below `aws_data_prefix`."""
    return AwsSource(entry, config.aws_max_pool_connections)


class AwsSource(Source):
    """The pictures in a bucket below one prefix."""

    def __init__(self, entry: DatasetEntry, connections: int) -> None:
        self._bucket = entry.aws_bucket_name or ""
        prefix = (entry.aws_data_prefix or "").strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        root = f"s3://{self._bucket}/{self._prefix}"
        super().__init__(entry.id, root, root, is_remote=True)
        self._entry = entry
        self._connections = connections
        self._lock = threading.Lock()
        if not entry.aws_bucket_name:
            raise self.fault("aws_bucket_name is missing. Give the bucket that holds the pictures.")

    def check(self) -> None:
        """Asks for one key, which needs the bucket, the credentials and the right to list."""
        arguments = {"Bucket": self._bucket, "Prefix": self._prefix, "MaxKeys": 1}
        answer = self._ask(partial(self._list_page, arguments))
        if not answer.get("Contents"):
            raise self.fault(f"{self.root} holds no objects. Correct aws_data_prefix or aws_bucket_name.")

    def walk(self) -> Iterator[FoundFile | Quarantined]:
        """Every picture below the prefix, a page at a time."""
        token: dict[str, str] = {}
        while True:
            arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix, "MaxKeys": PAGE} | token
            page = self._ask(partial(self._list_page, arguments))
            for item in page.get("Contents", ()):
                if found := self._look_at(item):
                    yield found
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, path: str) -> bytes:
        """The bytes of an object."""
        try:
            return self._read(path)
        except FileNotFoundError as error:
            raise UnusableImageError("it is not in the bucket any more") from error

    def read_text(self, path: str) -> str:
        """The text of an object."""
        return self._read(path).decode("utf-8-sig")

    def _read(self, path: str) -> bytes:
        key = path.removeprefix(f"s3://{self._bucket}/")
        return self._ask(partial(self._stream, key))

    def _list_page(self, arguments: dict[str, Any]) -> dict[str, Any]:
        page: dict[str, Any] = self._client.list_objects_v2(**arguments)
        return page

    def _stream(self, key: str) -> bytes:
        with self._client.get_object(Bucket=self._bucket, Key=key)["Body"] as body:
            data = bytearray()
            while block := body.read(BLOCK_BYTES):
                data += block
                if len(data) > LARGEST_BYTES:
                    raise UnusableImageError(f"it is larger than {LARGEST_BYTES >> 30} GiB")
        return bytes(data)

    def _look_at(self, item: dict[str, Any]) -> FoundFile | Quarantined | None:
        key = item["Key"]
        below = key.removeprefix(self._prefix)
        if os.path.splitext(key)[1].lower() not in PICTURE_SUFFIXES or any(
            part.startswith(".") for part in below.split("/")
        ):
            return None
        path = f"s3://{self._bucket}/{key}"
        if not item["Size"]:
            return Quarantined(path, "the object is empty")
        changed = int(item["LastModified"].timestamp() * 1e9)
        mark = int.from_bytes(item["ETag"].strip('"').encode()[:32].rjust(32, b"0")[-8:], "big")
        return FoundFile(path, (item["Size"], changed, 0, mark))

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        entry = self._entry
        config = Config(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            max_pool_connections=self._connections,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if entry.aws_endpoint_url else None,
        )
        with self._lock:  # making clients is not safe among threads, using them is
            return boto3.session.Session().client(
                "s3",
                endpoint_url=entry.aws_endpoint_url,
                region_name=entry.aws_region_name or ("us-east-1" if entry.aws_endpoint_url else None),
                aws_access_key_id=entry.aws_access_key_id,
                aws_secret_access_key=entry.aws_secret_access_key,
                config=config,
            )

    def _ask(self, call: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ClientError as error:
            if self._code_of(error) in NOT_FOUND and error.operation_name == "GetObject":
                raise FileNotFoundError(str(error)) from error
            raise self._translate_answer(error) from error
        except BotoCoreError as error:
            raise self._translate(error) from error
        except (HTTPError, OSError) as error:
            raise SourceDown(f"dataset {self.dataset}: {self.root} stopped answering: {error}") from error
        except ValueError as error:  # boto's own word on an address that is none
            raise self.fault(f"{error}. Correct aws_endpoint_url.") from error

    def _translate_answer(self, error: ClientError) -> FlowtunerError:
        code = self._code_of(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        message = str(error.response.get("Error", {}).get("Message") or "no reason given").rstrip(".")
        text = f"the bucket {self._bucket} answered {code}: {message}."
        if code in PASSING or status == TOO_MANY or (status >= SERVER_FAULT and status != NOT_BUILT):
            return SourceDown(f"dataset {self.dataset}: {text}")
        remedy = REMEDIES.get(code) or REMEDIES.get(str(status)) or "Check the aws_ keys of the entry."
        return self.fault(f"{text} {remedy}")

    def _translate(self, error: BotoCoreError) -> FlowtunerError:
        from botocore import exceptions

        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return self.fault(
                "there are no credentials. Give aws_access_key_id and aws_secret_access_key, best as {env:NAME}, or "
                "AWS's own environment variables or profile."
            )
        if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError):
            return SourceDown(f"dataset {self.dataset}: {self.root} does not answer: {error}")
        return self.fault(f"{error}. Check the aws_ keys of the entry.")

    @staticmethod
    def _code_of(error: ClientError) -> str:
        return str(error.response.get("Error", {}).get("Code") or "")
