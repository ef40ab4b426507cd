"""What S3 and its relatives refuse or fail at, as our own errors with a remedy."""

from __future__ import annotations

from types import MappingProxyType

from botocore import exceptions

from flowtuner.errors import DestinationDown, FlowtunerError, PublishError

# Asking again may help: the service is busy, or the bytes were damaged on their way.
PASSING = frozenset(
    {
        "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException",
        "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted", "NoSuchUpload",
        "BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
    }
)  # fmt: skip

CHECK_KEYS = "Check access_key and secret_key."
REMEDIES = MappingProxyType(
    {
        "InvalidAccessKeyId": f"The storage does not know this access key. {CHECK_KEYS}",
        "SignatureDoesNotMatch": f"The secret key does not belong to the access key. {CHECK_KEYS}",
        "AccessDenied": "Allow these credentials s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, "
        "s3:DeleteObject and s3:AbortMultipartUpload on its objects.",
        "ExpiredToken": "The temporary credentials have expired: get new ones and publish again.",
        "InvalidToken": "Check session_token: it belongs to one pair of keys only.",
        "RequestTimeTooSkewed": "Set this machine's clock.",
        "NoSuchBucket": "Create the bucket or correct `bucket`.",
        "PermanentRedirect": "Set `region` to the bucket's region.",
        "AuthorizationHeaderMalformed": "Set `region` to the bucket's region.",
        "EntityTooLarge": "Leave out force_single_part, so that large files are sent in parts.",
        "EntityTooSmall": "Raise part_mib: this storage wants larger parts.",
        "InvalidStorageClass": "Choose a storage_class that this storage has.",
        "QuotaExceeded": "Free space there or ask for more.",
        "InvalidArgument": 'If the storage refuses x-amz-checksum headers, set "checksums": "when_required".',
        "InvalidRequest": 'If the storage refuses x-amz-checksum headers, set "checksums": "when_required".',
        "NotImplemented": 'If the storage refuses x-amz-checksum headers, set "checksums": "when_required".',
    }
)
STATUS_REMEDIES = MappingProxyType(
    {
        "400": "Check endpoint_url, region and credentials.",
        "401": CHECK_KEYS,
        "403": REMEDIES["AccessDenied"],
        "404": REMEDIES["NoSuchBucket"],
    }
)


def code_of(error: exceptions.ClientError) -> str:
    """The storage's own name for what is wrong, or the HTTP status where there is none."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error))


def status_of(error: exceptions.ClientError) -> int:
    """The HTTP status of an answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def translate(error: exceptions.BotoCoreError | exceptions.ClientError, name: str, bucket: str) -> FlowtunerError:
    """Our own error for one of botocore's; what may pass by itself is a DestinationDown."""
    if isinstance(error, exceptions.ClientError):
        return _translate_answer(error, name, bucket)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return PublishError(
            f"{name}: there are no credentials. Give access_key and secret_key, a stored block, or AWS's own "
            "environment variables or profile."
        )
    if isinstance(error, exceptions.ProfileNotFound | exceptions.CredentialRetrievalError | exceptions.SSLError):
        return PublishError(f"{name}: {error}. Correct profile, credentials or certificates.")
    if isinstance(error, _UNREACHED):
        return DestinationDown(f"{name} does not answer: {error}")
    return PublishError(f"{name}: {error}. Check bucket, region and endpoint_url.")


_UNREACHED = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
)


def _translate_answer(error: exceptions.ClientError, name: str, bucket: str) -> FlowtunerError:
    code, status = code_of(error), status_of(error)
    message = str(error.response.get("Error", {}).get("Message") or "no reason given").rstrip(".")
    text = f"{name}: the bucket {bucket} answered {code}: {message}."
    if code in PASSING or status == 429 or (status >= 500 and status != 501):
        return DestinationDown(text)
    remedy = REMEDIES.get(code) or STATUS_REMEDIES.get(str(status), "Check the entry in publishing_config.")
    return PublishError(f"{text} {remedy}")
