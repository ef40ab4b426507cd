"""The upload benchmark on small files: every client of ours gets everything there, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import uploads

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("client", ["s3", "azure", "boto3", "sdk", "s5cmd", "rclone", "rclone-azure"])
def test_a_client_uploads_everything(tmp_path: Path, client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "GIB", 96 << 20)
    monkeypatch.setattr(uploads, "FILES", 20)
    big, small = uploads._make_files(tmp_path)
    with uploads._sink(tmp_path) as url:
        tools = uploads._Tools(url, tmp_path)
        for folder, size in ((big, 96 << 20), (small, 20 * uploads.FILE_BYTES)):
            told = tools.run(client, folder)
            assert told["payload"] >= size
            assert told["seconds"] > 0
        if client in ("s3", "azure"):
            assert tools.again(client, small) == {"requests": 2, "payload": 0}
