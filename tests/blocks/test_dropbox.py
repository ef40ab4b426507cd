"""The Dropbox destination through the official SDK: what is written, proved, resumed, shared, refused, cleaned up."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from dropbox.content_hash import content_hash

from blocks import dropbox as dropbox_module
from blocks.dropbox import MIB, DropboxDestination
from blocks.parts import dropbox_calls
from flowtuner.errors import ConfigError, DestinationDown, FlowtunerError, PublishError
from flowtuner.publishing.destination import Place
from flowtuner.publishing.registry import open_destinations
from flowtuner.publishing.snapshot import freeze, release_unit
from tests.blocks.conftest import DROPBOX_TOKEN, RUN, ignore, take_checkpoint
from tests.fakes.dropbox.account import SCOPES, Account, Refusal

BIG = {"transformer/weights.safetensors": os.urandom(9 * MIB), "training_state.json": b"{}"}
PREFIX = f"/team/a/{RUN}/checkpoint-20"
APPEND = "files/upload_session/append_v2"


@pytest.fixture
def destination(account: Account) -> DropboxDestination:
    return open_destination()


def open_destination(**settings: Any) -> DropboxDestination:
    return DropboxDestination(**{"token": DROPBOX_TOKEN, "base_path": "/team/a/", "chunk_mib": 4, **settings})


def names_in(account: Account) -> list[str]:
    return sorted(file.path for file in account.files.values())


def routes_of(account: Account) -> list[str]:
    return [route for route, _ in account.requests]


def test_a_checkpoint_is_published_proved_shared_and_not_sent_again(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    progress: list[tuple[int, int]] = []
    result = destination.publish(snapshot, lambda done, total: progress.append((done, total)))
    assert names_in(account) == [f"{PREFIX}/{name}" for name in ("manifest.json", *sorted(BIG))]
    assert (result.verified, result.files, result.sent_files, result.sent_bytes) == (True, 2, 2, 9 * MIB + 2)
    assert progress[-1] == (9 * MIB + 2, 9 * MIB + 2)
    assert progress == sorted(progress)
    assert destination.verify(snapshot.manifest, deep=True) == []
    assert result.uri == account.links[PREFIX.lower()]
    assert account.sessions == {}
    assert list(snapshot.folder.parent.iterdir()) == [snapshot.folder]

    account.requests.clear()
    again = open_destination().publish(snapshot, ignore)
    assert (again.sent_files, again.sent_bytes, again.uri) == (0, 0, result.uri)
    assert (again.manifest_sha256, again.notes) == (result.manifest_sha256, ())
    assert routes_of(account) == ["files/download", "files/list_folder", "sharing/list_shared_links"]


def test_many_small_files_travel_in_few_requests(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    files = {f"part-{number}.bin": b"%d" % number for number in range(60)} | {"empty.txt": b""}
    snapshot = take_checkpoint(tmp_path, 20, files)
    destination.publish(snapshot, ignore)
    assert {name: account.files[f"{PREFIX}/{name}".lower()].data for name in files} == files
    sent = [route for route in routes_of(account) if "upload" in route]
    assert sent == [
        "files/upload_session/start_batch",
        "files/upload_session/append_batch",
        "files/upload_session/finish_batch_v2",
        "files/upload",
    ]


def test_only_what_changed_travels_and_what_is_gone_is_removed(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    output_dir = tmp_path / "out" / RUN
    for name, text in {"pipeline/a.bin": "a", "pipeline/b.bin": "b", "README.md": "card"}.items():
        (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (output_dir / name).write_text(text)
    first = destination.publish(freeze(release_unit(output_dir, "r1", 9, {})).seal(), ignore)
    account.commit({"path": f"/team/a/{RUN}/theirs.txt"}, b"not ours")
    (output_dir / "pipeline/a.bin").unlink()
    (output_dir / "README.md").write_text("new card")
    result = destination.publish(freeze(release_unit(output_dir, "r1", 10, {})).seal(), ignore)
    assert (result.sent_files, result.sent_bytes, result.uri) == (1, 8, first.uri)
    assert names_in(account) == [
        f"/team/a/{RUN}/{name}" for name in ("README.md", "manifest.json", "pipeline/b.bin", "theirs.txt")
    ]


def test_an_upload_cut_in_the_middle_stays_invisible_and_goes_on_in_another_process(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)

    def cut(done: int, total: int) -> None:
        if done:
            raise DestinationDown("the cable was pulled")

    with pytest.raises(DestinationDown):
        destination.publish(snapshot, cut)
    assert names_in(account) == []
    [session] = account.sessions.values()
    assert len(session.data) == 4 * MIB
    account.requests.clear()
    open_destination().publish(snapshot, ignore)
    # An empty request asks how far it is; then come the missing bytes alone.
    assert [size for route, size in account.requests if route == APPEND] == [0, 4 * MIB, MIB]
    assert destination.verify(snapshot.manifest, deep=True) == []


@pytest.mark.parametrize("change", ["forgotten", "of other bytes", "closed"])
def test_a_session_that_is_not_what_was_noted_costs_time_and_nothing_else(
    tmp_path: Path, account: Account, destination: DropboxDestination, change: str
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    with pytest.raises(DestinationDown):
        destination.publish(snapshot, lambda done, total: fail_if(done > 4 * MIB))
    [(name, session)] = account.sessions.items()
    if change == "forgotten":
        del account.sessions[name]
    elif change == "closed":
        session.is_closed = True
    else:
        session.data[0] ^= 1
    for attempt in range(2):  # wrong bytes are found out when they have their name, and then sent again
        try:
            open_destination().publish(snapshot, ignore)
        except DestinationDown as error:
            assert attempt == 0
            assert "other bytes" in str(error) or "is not there" in str(error)
            assert f"{PREFIX}/manifest.json" not in names_in(account)
    assert destination.verify(snapshot.manifest, deep=True) == []


def fail_if(condition: bool) -> None:
    if condition:
        raise DestinationDown("the cable was pulled")


def test_a_publish_that_died_before_its_manifest_sends_only_that(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    account.hooks.append(lambda route: refuse_if(route == "files/upload", 403, "suspended"))
    with pytest.raises(FlowtunerError):
        destination.publish(snapshot, ignore)
    account.hooks.clear()
    assert names_in(account) == [f"{PREFIX}/{name}" for name in sorted(BIG)]
    account.requests.clear()
    destination.publish(snapshot, ignore)
    assert not [route for route in routes_of(account) if "session" in route]
    assert destination.verify(snapshot.manifest, deep=True) == []


def refuse_if(condition: bool, status: int, error: Any) -> None:
    if condition:
        raise Refusal(status, {".tag": error} if isinstance(error, str) else error)


def test_old_checkpoints_go_with_their_folders(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    for step in (20, 40, 60):
        destination.publish(take_checkpoint(tmp_path, step), ignore)
    account.commit({"path": f"/team/a/{RUN}/checkpoint-1/theirs"}, b"no manifest of ours")
    assert destination.prune(RUN, 0, "checkpoint-60") == []
    assert destination.prune(RUN, 2, "checkpoint-60") == ["checkpoint-20"]
    assert {path.split("/")[4] for path in names_in(account)} == {"checkpoint-1", "checkpoint-40", "checkpoint-60"}
    assert PREFIX.lower() not in account.folders
    account.commit({"path": f"/team/a/{RUN}/checkpoint-40/theirs"}, b"kept")
    destination.prune(RUN, 1, "checkpoint-60")
    assert f"/team/a/{RUN}/checkpoint-40/theirs" in names_in(account)


def test_two_runs_at_the_same_place_are_noticed(account: Account, destination: DropboxDestination) -> None:
    with destination._open_store() as store:
        store.write("x/manifest.json", b"theirs", is_new=True)
        store.write("x/manifest.json", b"theirs", is_new=True)  # our own, when the first reply was lost
        with pytest.raises(PublishError, match="two runs"):
            store.write("x/manifest.json", b"ours", is_new=True)
        store.read("x/manifest.json")
        account.commit({"path": "/team/a/x/manifest.json", "mode": "overwrite"}, b"changed meanwhile")
        with pytest.raises(PublishError, match="two runs"):
            store.write("x/manifest.json", b"ours")


def test_a_file_that_changed_on_this_disk_is_not_published(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    for name in BIG:
        path = snapshot.folder / name
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(PublishError, match="other bytes than when it was frozen"):
            destination.publish(snapshot, ignore)
        path.write_bytes(data)
    assert names_in(account) == []


def test_names_that_differ_in_case_or_accents_only(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    account.folders["/team/a/run 1"] = "/Team/A/Run 1"  # the folder had another case before we came
    name = unicodedata.normalize("NFD", "é.bin")
    snapshot = take_checkpoint(tmp_path, 20, {name: b"1", "B.bin": b"2"})
    assert destination.publish(snapshot, ignore).verified
    assert destination.publish(snapshot, ignore).sent_files == 0
    with pytest.raises(PublishError, match="one file to Dropbox"):
        destination.publish(take_checkpoint(tmp_path, 40, {"b.bin": b"1", "B.bin": b"2"}), ignore)


def test_what_is_read_back_goes_on_where_the_line_broke(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    result = destination.publish(snapshot, ignore)
    for uri in (f"dropbox://team/a/{RUN.replace(' ', '%20')}/checkpoint-20", str(result.uri)):
        assert DropboxDestination.entry_of_uri(uri) == {"provider": "dropbox"}
        found, place = open_destination(base_path="").follow(uri) or (None, None)
        assert place == Place(RUN, "checkpoint-20")
        assert found is not None
        assert found.base_path == "team/a"
    [manifest] = destination.units(RUN)
    account.cuts = [1 * MIB, 2 * MIB]
    account.requests.clear()
    destination.fetch(manifest, tmp_path / "back", ignore)
    assert routes_of(account).count("files/download") == len(BIG) + 2
    assert {name: (tmp_path / "back" / name).read_bytes() for name in BIG} == BIG
    with destination._open_store() as store:
        assert (
            b"".join(store.chunks(f"{RUN}/checkpoint-20/transformer/weights.safetensors", 5))
            == next(iter(BIG.values()))[5:]
        )
        with pytest.raises(PublishError, match="is missing"):
            list(store.chunks("nothing", 0))


def test_links(tmp_path: Path, account: Account) -> None:
    snapshot = take_checkpoint(tmp_path, 20)
    plain = "dropbox://a%20b/run%201/checkpoint-20"
    assert open_destination(base_path="a b", shared_link=False).publish(snapshot, ignore).uri == plain
    public = open_destination(base_path="a b", public_base_url="https://cdn.example/x/")
    assert public.publish(snapshot, ignore).uri == "https://cdn.example/x/a%20b/run%201/checkpoint-20"
    assert account.links == {}
    account.grant("canary-narrow", scopes=SCOPES - {"sharing.write", "sharing.read"})
    narrow = open_destination(base_path="a b", token="canary-narrow")
    first = narrow.publish(snapshot, ignore)
    assert (first.uri, first.verified) == (plain, True)
    assert "sharing.write" in first.notes[0]
    assert narrow.publish(snapshot, ignore).notes == ()  # said once
    assert open_destination(base_path="a b").publish(snapshot, ignore).uri == next(iter(account.links.values()))


def test_without_a_base_path_nothing_begins_with_two_slashes(tmp_path: Path, account: Account) -> None:
    destination = open_destination(base_path="")
    destination.probe()
    result = destination.publish(take_checkpoint(tmp_path, 20), ignore)
    assert all(path.startswith(f"/{RUN}/checkpoint-20/") for path in names_in(account))
    assert destination.uri_of(take_checkpoint(tmp_path, 20).manifest) == "dropbox://run%201/checkpoint-20"
    assert (destination.name, result.verified) == ("dropbox", True)


def test_a_refresh_token_makes_access_tokens_as_they_expire(tmp_path: Path, account: Account) -> None:
    account.refresh_tokens["canary-refresh"] = ("canary-app", "canary-secret")
    now = [1000.0]
    account.clock = lambda: now[0]
    settings = {"token": None, "refresh_token": "canary-refresh", "app_key": "canary-app"}
    destination = open_destination(**settings, app_secret="canary-secret")
    destination.publish(take_checkpoint(tmp_path, 20), ignore)
    destination.publish(take_checkpoint(tmp_path, 40), ignore)
    assert routes_of(account).count("oauth2/token") == 1
    now[0] += 4 * 3600  # as for the SDK, the token it holds is still good: the service says otherwise
    destination.publish(take_checkpoint(tmp_path, 60), ignore)
    assert destination.cautions() == []
    with pytest.raises(PublishError, match="Check app_key and app_secret"):
        open_destination(**settings, app_secret="canary-wrong").probe()
    account.refresh_tokens.clear()
    with pytest.raises(PublishError, match="authorize the app again"):
        open_destination(**settings, app_secret="canary-secret").probe()


def test_a_short_lived_token_is_a_caution_and_its_end_an_error_with_a_remedy(tmp_path: Path, account: Account) -> None:
    destination = open_destination(token=account.grant(lifetime_s=0))
    [caution] = destination.cautions()
    assert "four hours" in caution
    assert "refresh_token" in caution
    with pytest.raises(PublishError, match=r"has expired.*refresh_token") as caught:
        destination.publish(take_checkpoint(tmp_path, 20), ignore)
    assert "sl." not in str(caught.value).replace("`sl.`", "")
    assert open_destination().cautions() == []


def test_a_revoked_token_that_was_replaced(tmp_path: Path, account: Account, destination: DropboxDestination) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)

    def revoke(done: int, total: int) -> None:
        if done:
            account.tokens.clear()

    with pytest.raises(PublishError, match="replace token") as caught:
        destination.publish(snapshot, revoke)
    assert "canary" not in str(caught.value)
    assert names_in(account) == []
    account.grant("canary-new")
    fresh = open_destination(token="canary-new")
    fresh.publish(snapshot, ignore)
    assert fresh.verify(snapshot.manifest, deep=True) == []


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("files.content.write", "files.content.write.*Permissions"),
        ("files.content.read", "files.content.read"),
        ("files.metadata.read", "files.metadata.read"),
    ],
)
def test_a_missing_permission_is_named_by_the_probe(account: Account, scope: str, said: str) -> None:
    account.grant("canary-narrow", scopes=SCOPES - {scope})
    with pytest.raises(PublishError, match=said):
        open_destination(token="canary-narrow").probe()


def test_a_full_account(tmp_path: Path, account: Account, destination: DropboxDestination) -> None:
    account.quota = 1 * MIB
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    with pytest.raises(PublishError, match="9 MiB are needed"):
        destination.publish(snapshot, ignore)
    account.grant("canary-narrow", scopes=SCOPES - {"account_info.read"})
    with pytest.raises(PublishError, match=r"insufficient_space.*free space there"):
        open_destination(token="canary-narrow").publish(snapshot, ignore)
    assert f"{PREFIX}/manifest.json" not in names_in(account)
    account.quota, sent = 1 << 30, len(account.requests)
    destination.publish(snapshot, ignore)
    # What was sent in vain is not sent again.
    assert sum(size for route, size in account.requests[sent:] if route == APPEND) == 0


def test_what_stands_in_the_way_is_named(tmp_path: Path, account: Account, destination: DropboxDestination) -> None:
    snapshot = take_checkpoint(tmp_path, 20, {"weights.bin": b"w"})
    account.folders[f"{PREFIX.lower()}/weights.bin"] = f"{PREFIX}/weights.bin"
    with pytest.raises(PublishError, match=r"path/conflict/folder.*move it away"):
        destination.publish(snapshot, ignore)
    account.folders.clear()
    account.commit({"path": f"/team/a/{RUN}"}, b"a file where the run should be")
    with pytest.raises(PublishError, match="A file stands where a folder is needed"):
        destination.publish(snapshot, ignore)


def test_waits_are_as_long_as_asked_and_not_for_ever(
    account: Account, destination: DropboxDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropbox_calls, "POLL_S", 0.01)
    asked, retry_after = [0], [0.05]

    def limit(route: str) -> None:
        asked[0] += 1
        error = {"reason": {".tag": "too_many_requests"}, "retry_after": retry_after[0]}
        raise Refusal(429, error, {"Retry-After": str(retry_after[0])})

    account.hooks.append(limit)
    retry_after[0] = 0
    with pytest.raises(DestinationDown, match="too many requests"):
        destination.verify(take_manifest(account))
    assert asked[0] == dropbox_module.ATTEMPTS
    asked[0], retry_after[0] = 0, 3600
    with pytest.raises(DestinationDown, match="for 3600 s"):
        destination.verify(take_manifest(account))
    assert asked[0] == 1


def take_manifest(account: Account) -> Any:
    from flowtuner.durable import FileRecord
    from flowtuner.publishing.manifest import Manifest

    return Manifest(RUN, "checkpoint-20", "checkpoint", 20, "r1", "", (FileRecord("w", 1, content_hash(b"w")),))


def test_too_many_writes_at_once_are_written_later(
    tmp_path: Path, account: Account, destination: DropboxDestination
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    account.busy = 2
    destination.publish(snapshot, ignore)
    assert account.busy == 0
    assert destination.verify(snapshot.manifest, deep=True) == []


def test_a_team_folder_is_named_by_its_namespace(tmp_path: Path, account: Account) -> None:
    open_destination(namespace="42").publish(take_checkpoint(tmp_path, 20), ignore)
    assert set(account.roots[1:]) == {'{".tag": "namespace_id", "namespace_id": "42"}'}
    account.roots.clear()
    open_destination(namespace="root").probe()
    assert set(account.roots[1:]) == {'{".tag": "root", "root": "7"}'}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "token is required"),
        ({"refresh_token": "canary-r"}, "app_key"),
        ({"token": "canary with\nbreaks"}, "has characters"),
        ({"token": "canary", "access_token": "canary"}, "given twice"),
        ({"token": "canary", "chunk_mib": 5}, "chunk_mib"),
        ({"token": "canary", "base_path": "../x"}, "base_path"),
    ],
)
def test_mistakes_in_an_entry_are_named_without_its_secrets(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        open_destinations([{"provider": "dropbox", **entry}])
    assert "canary" not in str(caught.value)
    [destination] = open_destinations(
        [{"provider": "dropbox", "access_token": " canary ", "base_path": "/SimpleTuner/runs"}]
    )
    assert destination.token.get_secret_value() == "canary"  # type: ignore[attr-defined]


def test_the_probe_leaves_nothing(account: Account, destination: DropboxDestination) -> None:
    destination.probe()
    assert names_in(account) == []
