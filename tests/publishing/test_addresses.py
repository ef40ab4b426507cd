"""What URIs name below a destination."""

from __future__ import annotations

import pytest

from flowtuner.publishing.addresses import place_below
from flowtuner.publishing.destination import Place


@pytest.mark.parametrize(
    ("root", "uri", "found"),
    [
        ("s3://bucket", "s3://bucket/run", ("", Place("run"))),
        ("s3://bucket", "s3://bucket/team/a/run/checkpoint-50/", ("team/a", Place("run", "checkpoint-50"))),
        ("s3://bucket", "s3://bucket-2/run", None),
        ("s3://bucket", "s3://bucket", None),
        ("s3://bucket", "s3://bucket/checkpoint-50", None),
        ("https://cdn.example/x", "HTTPS://CDN.example/x/run%201?sig=1", ("", Place("run 1"))),
        ("https://cdn.example/x", "https://cdn.example/xy/run", None),
        ("https://cdn.example/x", "http://cdn.example/x/run", None),
        ("file:///mnt/a%20b", "file:///mnt/a%20b/run/checkpoint-1", ("", Place("run", "checkpoint-1"))),
    ],
)
def test_a_uri_names_a_run_and_perhaps_a_checkpoint(root: str, uri: str, found: object) -> None:
    assert place_below(root, uri) == found
