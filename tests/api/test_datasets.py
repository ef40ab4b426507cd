"""Data sets over HTTP: folders, files, ZIPs, and what tries to get out or in where it should not."""

from __future__ import annotations

import io
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from flowtuner.api.app import create_app
from flowtuner.api.settings import ServerSettings
from flowtuner.api.uploads import UploadLimits

PICTURE = ("image001.png", b"\x89PNG picture", "image/png")
CAPTION = ("image001.txt", b"a caption", "text/plain")


@pytest.fixture
def target(local: TestClient, settings: ServerSettings) -> Path:
    form = {"parent_path": str(settings.datasets_dir), "folder_name": "pixart-upload"}
    reply = local.post("/api/datasets/folders", data=form)
    assert reply.json() == {
        "success": True,
        "path": str(settings.datasets_dir / "pixart-upload"),
        "name": "pixart-upload",
        "error": None,
    }
    return settings.datasets_dir / "pixart-upload"


def send_zip(client: TestClient, target: Path, **members: bytes):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return post_zip(client, target, packed.getvalue())


def post_zip(client: TestClient, target: Path, data: bytes, name: str = "set.zip"):
    form = {"target_path": str(target)}
    return client.post("/api/datasets/upload/zip", data=form, files={"file": (name, data, "application/zip")})


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("field", ["files", "files[]"])
def test_files_arrive(local: TestClient, target: Path, field: str) -> None:
    reply = local.post(
        "/api/datasets/upload", data={"target_path": str(target)}, files=[(field, PICTURE), (field, CAPTION)]
    )
    assert reply.status_code == 200
    assert (reply.json()["success"], reply.json()["files_uploaded"]) == (True, 2)
    assert (target / "image001.png").read_bytes() == PICTURE[1]
    assert names(target.parent) == ["pixart-upload/image001.png", "pixart-upload/image001.txt"]


def test_a_file_that_is_there_is_not_replaced_by_mistake(local: TestClient, target: Path) -> None:
    form = {"target_path": str(target)}
    assert local.post("/api/datasets/upload", data=form, files=[("files", PICTURE)]).status_code == 200
    newer = ("image001.png", b"newer", "image/png")
    refused = local.post("/api/datasets/upload", data=form, files=[("files", newer), ("files", CAPTION)])
    assert refused.status_code == 409 and names(target) == ["image001.png"]
    accepted = local.post("/api/datasets/upload", data=form | {"overwrite": "true"}, files=[("files", newer)])
    assert accepted.status_code == 200 and (target / "image001.png").read_bytes() == b"newer"


@pytest.mark.parametrize("name", ["../up.png", "/etc/x.png", "a\\b.png", "run.sh", ".hidden.png", "x" * 252 + ".png"])
def test_one_bad_file_keeps_all_out(local: TestClient, target: Path, name: str) -> None:
    bad = (name, b"x", "image/png")
    form = {"target_path": str(target)}
    reply = local.post("/api/datasets/upload", data=form, files=[("files", PICTURE), ("files", bad)])
    assert reply.status_code == 400 and names(target.parent) == []


@pytest.mark.parametrize("path", ["/etc", "..", "pixart-upload/../..", "/"])
def test_folders_elsewhere_are_out_of_reach(local: TestClient, target: Path, path: str) -> None:
    assert local.post("/api/datasets/folders", data={"parent_path": path, "folder_name": "x"}).status_code == 403
    reply = local.post("/api/datasets/upload", data={"target_path": path}, files=[("files", PICTURE)])
    assert reply.status_code == 403
    assert reply.json()["detail"].startswith("Access denied: path is outside configured datasets directory.")


def test_a_link_out_of_the_folder_is_not_followed(local: TestClient, target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "sub").symlink_to(outside)
    reply = send_zip(local, target, **{"sub/a.png": b"x"})
    assert reply.status_code == 400 and list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a:b", "x" * 256])
def test_what_is_no_folder_name_is_refused(local: TestClient, target: Path, name: str) -> None:
    form = {"parent_path": str(target), "folder_name": name}
    assert local.post("/api/datasets/folders", data=form).status_code in (400, 422)


def test_a_zip_is_unpacked_without_what_does_not_belong(local: TestClient, target: Path) -> None:
    members = {
        "a/x..y.png": b"1",
        "b.png": b"2",
        "../out.png": b"3",
        "/abs.png": b"4",
        "run.sh": b"5",
        "C:/d.png": b"6",
    }
    reply = send_zip(local, target, **members).json()
    assert (reply["files_uploaded"], reply["files_skipped"]) == (2, 4)
    assert names(target.parent) == ["pixart-upload/a/x..y.png", "pixart-upload/b.png"]


def test_members_of_one_name_are_numbered(local: TestClient, target: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("b.png", b"1")
        archive.writestr("B.png", b"2")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("b.png", b"3")
    assert post_zip(local, target, packed.getvalue()).json()["files_uploaded"] == 3
    assert names(target) == ["B_1.png", "b.png", "b_2.png"]


def test_a_link_in_a_zip_is_left_out(local: TestClient, target: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.png", b"1")
    assert post_zip(local, target, packed.getvalue()).json()["errors"] == ["link.png: is a link"]
    assert names(target) == ["a.png"]


@pytest.mark.parametrize("data", [b"no zip at all", b"PK\x03\x04 half a zip"])
def test_a_broken_zip_leaves_nothing(local: TestClient, target: Path, data: bytes) -> None:
    reply = post_zip(local, target, data)
    assert reply.status_code == 400 and reply.json()["code"] == "bad_zip"
    assert names(target.parent) == []
    assert post_zip(local, target, data, "set.tar").json()["detail"] == "File must be a ZIP archive"


def test_a_bomb_is_refused_as_a_whole(local: TestClient, target: Path) -> None:
    reply = send_zip(local, target, **{"a.png": b"1", "bomb.png": bytes(64 << 20)})
    assert reply.status_code == 413 and reply.json()["code"] == "expands_too_far"
    assert names(target.parent) == []


def test_too_much_is_refused_while_it_comes(settings: ServerSettings) -> None:
    small = replace(settings, upload_limits=UploadLimits(file_bytes=1000, request_bytes=5000, members=2))
    with TestClient(create_app(small), base_url="http://localhost:8001", client=("127.0.0.1", 5000)) as client:
        target = small.datasets_dir
        target.mkdir(parents=True)
        large = ("large.png", bytes(2000), "image/png")
        form = {"target_path": str(target)}
        for files in ([("files", large)], [("files", (f"{n}.png", bytes(900), "image/png")) for n in range(6)]):
            assert client.post("/api/datasets/upload", data=form, files=files).status_code == 413
        assert send_zip(client, target, **{f"{n}.png": b"" for n in range(3)}).status_code == 413
        assert names(target) == []


def test_a_body_that_breaks_off_leaves_nothing(local: TestClient, target: Path) -> None:
    whole = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nbytes'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = local.post("/api/datasets/upload", content=whole, headers=headers)
    assert reply.status_code == 400 and reply.json()["code"] == "broken_body"
    assert local.post("/api/datasets/upload", content=b"x").status_code == 415
    assert names(target.parent) == []
