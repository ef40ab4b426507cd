"""The Hub destination against a Hub on loopback: one commit per unit, proved, found again, retained and refused."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from blocks.huggingface import HuggingFaceDestination
from flowtuner.errors import ConfigError, DestinationDown, PublishError
from flowtuner.publishing.manifest import parse_manifest
from flowtuner.publishing.registry import check_entries, open_destinations
from flowtuner.publishing.snapshot import Snapshot, freeze, release_unit
from tests.blocks.conftest import RUN, ignore, leave_sign_in_alone, take_checkpoint
from tests.fakes.hub.accounts import ALICE, ALICE_READS
from tests.fakes.hub.faults import Fault
from tests.fakes.hub.server import Hub, serve

REPO = "alice/fox-lora"
COMMIT = "POST .*/commit/"
UPLOAD = "PUT /_lfs/"
FILES = {
    "pytorch_lora_weights.safetensors": os.urandom(3000),
    "optimizer.bin": os.urandom(5000),
    "training_state.json": b'{"step": 1}',
}


def open_destination(**settings: Any) -> HuggingFaceDestination:
    return HuggingFaceDestination(**{"repo_id": REPO, **settings})


def take_release(tmp_path: Path, step: int, files: dict[str, bytes] | None = None) -> Snapshot:
    output_dir = tmp_path / "out" / RUN
    default = {"pytorch_lora_weights.safetensors": b"weights %d" % step, "README.md": b"---\nlicense: mit\n---\n# card"}
    for name, data in (files or default).items():
        (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (output_dir / name).write_bytes(data)
    return freeze(release_unit(output_dir, "r1", step, {"validation_type": "final"})).seal()


def test_a_checkpoint_is_one_commit_and_not_sent_again(tmp_path: Path, hub: Hub) -> None:
    destination, snapshot = open_destination(), take_checkpoint(tmp_path, 20, FILES)
    progress: list[tuple[int, int]] = []
    result = destination.publish(snapshot, lambda done, total: progress.append((done, total)))
    assert hub.titles(REPO) == ["Checkpoint of step 20", "initial commit"]
    assert hub.state.repos[REPO].is_private
    found = hub.files(REPO)
    inside = {path.removeprefix("checkpoint-20/"): data for path, data in found.items() if path.startswith("check")}
    assert inside == FILES | {"manifest.json": snapshot.manifest.to_bytes()}
    assert (result.verified, result.files, result.sent_files) == (True, 3, 3)
    assert result.uri == f"{hub.url}/{REPO}/tree/main/checkpoint-20"
    assert progress[-1][0] == progress[-1][1] > 0
    assert destination.verify(snapshot.manifest) == []

    hub.state.traffic.clear()
    again = open_destination().publish(snapshot, ignore)
    assert (again.sent_files, again.sent_bytes, again.manifest_sha256) == (0, 0, result.manifest_sha256)
    assert hub.state.traffic.count(COMMIT) == hub.state.traffic.count(UPLOAD) == 0
    assert len(hub.titles(REPO)) == 2


def test_the_newest_weights_stand_at_the_top_while_training_goes_on(tmp_path: Path, hub: Hub) -> None:
    weights = "pytorch_lora_weights.safetensors"
    hub.state.traffic.clear()
    open_destination().publish(take_checkpoint(tmp_path, 20, FILES), ignore)
    assert hub.files(REPO)[weights] == FILES[weights]
    assert hub.state.traffic.count(UPLOAD) == 2  # the same bytes in two places travel once
    top = parse_manifest(hub.files(REPO)["manifest.json"])
    assert top is not None
    assert [record.path for record in top.files] == [weights]
    assert (top.kind, top.step, top.metadata["checkpoint"]) == ("release", 20, "checkpoint-20")

    open_destination().publish(take_release(tmp_path, 30), ignore)
    later = FILES | {weights: os.urandom(10)}
    open_destination().publish(take_checkpoint(tmp_path, 40, later), ignore)
    assert hub.files(REPO)[weights] == later[weights]
    assert b"# card" in hub.files(REPO)["README.md"]  # what newer weights leave true stays


def test_a_release_is_tagged_and_a_pipeline_stands_at_the_top(tmp_path: Path, hub: Hub) -> None:
    files = {
        "pipeline/model_index.json": b"{}",
        "pipeline/transformer/config.json": b"{}",
        "pipeline/transformer/diffusion_pytorch_model.safetensors": os.urandom(100),
        "README.md": b"---\nlicense: mit\n---\n# card",
        "assets/image_0.png": b"\x89PNG\0",
        ".env": b"SECRET=canary",
        "logs/engine.log": b"noise",
    }
    snapshot = take_release(tmp_path, 30, files)
    result = open_destination().publish(snapshot, ignore)
    found = hub.files(REPO)
    assert sorted(found) == [
        "README.md", "assets/image_0.png", "manifest.json", "model_index.json", "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    manifest = parse_manifest(found["manifest.json"])
    assert manifest is not None
    assert sorted(record.path for record in manifest.files) == sorted(set(found) - {"manifest.json"})
    assert result.uri == f"{hub.url}/{REPO}"
    repo = hub.state.repos[REPO]
    assert repo.tags == {"run-r1": repo.branches["main"]}
    open_destination().publish(take_release(tmp_path, 40, {"README.md": b"---\nlicense: mit\n---\n# newer"}), ignore)
    assert repo.tags == {"run-r1": repo.branches["main"]}  # the same run, published again


def test_old_checkpoints_go_with_the_commit_that_brings_a_new_one(tmp_path: Path, hub: Hub) -> None:
    for step in (20, 40, 60):
        open_destination().publish(take_checkpoint(tmp_path, step, FILES), ignore, keep=2)
    assert hub.titles(REPO) == [f"Checkpoint of step {step}" for step in (60, 40, 20)] + ["initial commit"]
    folders = {path.split("/")[0] for path in hub.files(REPO) if "/" in path}
    assert folders == {"checkpoint-40", "checkpoint-60"}
    assert open_destination().prune(RUN, 1, "checkpoint-60") == ["checkpoint-40"]
    assert not [path for path in hub.files(REPO) if path.startswith("checkpoint-40/")]


@pytest.mark.parametrize(
    ("strategy", "folders"),
    [
        ("every_save", set()),
        ("checkpoint", {"last-checkpoint"}),
        ("all_checkpoints", {"checkpoint-20", "checkpoint-40"}),
    ],
)
def test_the_strategies_keep_what_their_names_promise(
    tmp_path: Path, hub: Hub, strategy: str, folders: set[str]
) -> None:
    destination = open_destination(hub_strategy=strategy)
    snapshots = [take_checkpoint(tmp_path, 20, FILES), take_checkpoint(tmp_path, 40, FILES | {"extra.bin": b"\0"})]
    for snapshot in snapshots:
        assert destination.publish(snapshot, ignore, keep=5).verified
    assert {path.split("/")[0] for path in hub.files(REPO) if "/" in path} == folders
    assert [destination.verify(snapshot.manifest) for snapshot in snapshots] == [[], []]
    commits = len(hub.titles(REPO))
    assert destination.publish(snapshots[0], ignore).verified  # late, as a repeated upload may be
    if strategy != "all_checkpoints":
        assert len(hub.titles(REPO)) == commits
    if strategy == "checkpoint":
        assert "extra.bin" in {path.removeprefix("last-checkpoint/") for path in hub.files(REPO)}
    assert hub.files(REPO)["extra.bin"] == b"\0"


def test_at_the_end_means_the_release_alone() -> None:
    destination = open_destination(hub_strategy="end")
    assert (destination.wants("checkpoint"), destination.wants("release")) == (False, True)


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_what_was_published_is_found_and_fetched(tmp_path: Path, hub: Hub, strategy: str) -> None:
    snapshot = take_checkpoint(tmp_path, 20, FILES)
    open_destination(hub_strategy=strategy).publish(snapshot, ignore)
    for uri in (
        f"hf://{REPO}",
        f"{hub.url}/{REPO}",
        f"hf://{REPO}/checkpoint-20",
        f"{hub.url}/{REPO}/tree/main/checkpoint-20",
    ):
        entry = HuggingFaceDestination.entry_of_uri(uri)
        assert entry is not None
        [destination] = open_destinations([entry])
        followed = destination.follow(uri)
        assert followed is not None
        destination, place = followed
        units = destination.units(place.run)
        assert [unit.name for unit in units if unit.kind == "checkpoint"] == ["checkpoint-20"]
        assert place.name in (None, "checkpoint-20")
    target = tmp_path / "fetched" / "checkpoint-20"
    destination.fetch(next(unit for unit in units if unit.kind == "checkpoint"), target, ignore)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES
    # Whoever comes with the address alone does not know by what strategy it was published.
    assert [destination.verify(unit) for unit in units] == [[] for _ in units]
    assert HuggingFaceDestination.entry_of_uri("s3://bucket/x") is None
    assert destination.follow("hf://bob/other") is None


def test_an_answer_lost_after_the_commit_makes_no_second_one(tmp_path: Path, hub: Hub) -> None:
    hub.state.traffic.faults = [Fault(COMMIT, 504, is_late=True)]
    assert open_destination().publish(take_checkpoint(tmp_path, 20, FILES), ignore).verified
    assert hub.titles(REPO) == ["Checkpoint of step 20", "initial commit"]


def test_a_commit_that_did_not_arrive_is_made_by_the_next_attempt(tmp_path: Path, hub: Hub) -> None:
    snapshot = take_checkpoint(tmp_path, 20, FILES)
    hub.state.traffic.faults = [Fault(COMMIT, 503)]
    with pytest.raises(DestinationDown, match="503"):
        open_destination().publish(snapshot, ignore)
    assert hub.titles(REPO) == ["initial commit"]
    hub.state.traffic.clear()
    assert open_destination().publish(snapshot, ignore).verified
    assert hub.titles(REPO) == ["Checkpoint of step 20", "initial commit"]
    assert hub.state.traffic.count(UPLOAD) == 0  # what arrived is not sent again


def test_somebody_elses_commit_in_between_is_not_written_over(tmp_path: Path, hub: Hub) -> None:
    snapshot = take_checkpoint(tmp_path, 20, FILES)
    hub.state.create(REPO, "alice", is_private=True)

    def meddle() -> None:
        repo = hub.state.repos[REPO]
        files = dict(next(repo.history()).files) | {"theirs.txt": hub.state.blobs.small(b"x")}
        repo.add(files, "theirs", "", "alice", "main")

    hub.state.traffic.faults = [Fault("POST .*/preupload/", then=meddle)]
    with pytest.raises(DestinationDown, match="meanwhile"):
        open_destination().publish(snapshot, ignore)
    assert open_destination().publish(snapshot, ignore).verified
    assert hub.files(REPO)["theirs.txt"] == b"x"


@pytest.mark.parametrize("name", ["optimizer.bin", "training_state.json"])
def test_a_byte_that_changed_and_a_file_that_went_are_reported(tmp_path: Path, hub: Hub, name: str) -> None:
    snapshot = take_checkpoint(tmp_path, 20, FILES)
    destination = open_destination()
    destination.publish(snapshot, ignore)
    repo, path = hub.state.repos[REPO], f"checkpoint-20/{name}"
    files = dict(next(repo.history()).files)
    other = bytes([FILES[name][0] ^ 1]) + FILES[name][1:]
    blobs = hub.state.blobs
    changed = blobs.large(blobs.put(other)) if files[path].is_large else blobs.small(other)
    repo.add(files | {path: changed}, "meddling", "", "alice", "main")
    assert destination.verify(snapshot.manifest) == [f"{RUN}/{path} has other bytes"]
    before = dict(repo.branches)
    assert destination.clear_damage(snapshot.manifest) == [f"{RUN}/{path} had other bytes"]
    assert destination.publish(snapshot, ignore).verified
    assert hub.files(REPO)[path] == FILES[name]
    repo.branches |= before
    del files[path]
    repo.add(files, "meddling", "", "alice", "main")
    assert destination.verify(snapshot.manifest) == [f"{RUN}/{path} is missing"]


def test_a_file_that_changed_on_this_disk_is_not_published(tmp_path: Path, hub: Hub) -> None:
    for number, name in enumerate(FILES):
        snapshot = take_checkpoint(tmp_path, 20 + number, FILES)
        path = snapshot.folder / name
        path.unlink()
        path.write_bytes(bytes([FILES[name][0] ^ 1]) + FILES[name][1:])
        with pytest.raises(PublishError, match="other bytes than when it was frozen"):
            open_destination().publish(snapshot, ignore)
    assert hub.titles(REPO) == ["initial commit"]


def test_who_is_stopped_lets_go_of_a_hub_that_hangs(tmp_path: Path, hub: Hub) -> None:
    held = threading.Event()
    hub.state.traffic.faults = [Fault(UPLOAD, held=held)]

    def stop(done: int, total: int) -> None:
        if not hub.state.traffic.faults[0].times:
            raise PublishError("the run was stopped")

    before = set(threading.enumerate())
    try:
        with pytest.raises(PublishError, match="stopped"):
            open_destination().publish(take_checkpoint(tmp_path, 20, FILES), stop)
    finally:
        held.set()
    assert hub.titles(REPO) == ["initial commit"]
    clear_away(before)


def clear_away(before: set[threading.Thread]) -> None:
    """Waits for the library's uploading threads, which try once more, and drops the sockets that they leave open."""
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_the_library_is_left_as_it_was(tmp_path: Path, hub: Hub) -> None:
    from huggingface_hub import get_session, set_client_factory
    from huggingface_hub.utils import _http
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    made: list[Any] = []

    def factory() -> Any:
        made.append(_http.default_client_factory())
        return made[-1]

    set_client_factory(factory)
    try:
        open_destination().publish(take_checkpoint(tmp_path, 20, FILES), ignore)
        assert _http._GLOBAL_CLIENT_FACTORY is factory
        assert made, "the user's own factory makes the clients"
        assert get_session().timeout.read is None
        assert not are_progress_bars_disabled()
    finally:
        set_client_factory(_http.default_client_factory)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "owner/name"),
        ({"repo_id": "model-name"}, "owner/name"),
        ({"repo_id": "alice/model name"}, "spaces"),
        ({"repo_id": "alice/x..y"}, "'..'"),
        ({"repo_id": f"alice/{'x' * 100}"}, "96"),
        ({"repo_id": REPO, "hub_model_id": "alice/other"}, "twice"),
        ({"repo_id": REPO, "endpoint": "https://u:p@hub"}, "without user"),
        ({"repo_id": REPO, "hub_strategy": "sometimes"}, "every_save"),
    ],
)
def test_a_wrong_entry_says_what_is_wrong(entry: dict[str, Any], words: str) -> None:
    faults = check_entries([{"provider": "huggingface", **entry}])
    assert words in " ".join(map(str, faults))


def test_names_are_taken_as_people_write_them() -> None:
    for said in (f" {REPO} ", f"https://huggingface.co/{REPO}/tree/main", f"hf://{REPO}"):
        [destination] = open_destinations([{"provider": "hub", "hub_model_id": said, "hub_private_repo": True}])
        assert isinstance(destination, HuggingFaceDestination)
        assert (destination.repo_id, destination.private) == (REPO, True)


def test_the_source_of_a_token_is_named_and_never_its_value(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "hf_canaryNobodyKnowsThis"
    monkeypatch.setenv("HF_TOKEN", canary)
    with pytest.raises(PublishError, match="environment variable HF_TOKEN") as caught:
        open_destination().publish(take_checkpoint(tmp_path, 20, FILES), ignore)
    assert canary not in str(caught.value)
    assert "hf auth login" in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "hf-home").mkdir()
    (tmp_path / "hf-home" / "token").write_text(f"{ALICE}\n")
    assert open_destination().publish(take_checkpoint(tmp_path, 20, FILES), ignore).verified
    (tmp_path / "hf-home" / "token").unlink()
    with pytest.raises(PublishError, match="token_missing"):
        open_destination().publish(take_checkpoint(tmp_path, 20, FILES), ignore)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", ALICE_READS)
    with pytest.raises(PublishError, match=r"write_forbidden.*HUGGING_FACE_HUB_TOKEN"):
        open_destination().publish(take_checkpoint(tmp_path, 40, FILES), ignore)


def test_contents_travel_by_xet_where_the_client_has_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_sign_in_alone(monkeypatch, tmp_path, has_xet=True)
    monkeypatch.setenv("HF_XET_XORB_COMPRESSION_POLICY", "none")  # the fake does not decompress
    monkeypatch.setenv("HF_TOKEN", ALICE)
    with serve(tmp_path_factory.mktemp("xet-hub"), has_xet=True) as hub:
        destination, snapshot = open_destination(endpoint=hub.url), take_checkpoint(tmp_path, 20, FILES)
        assert destination.publish(snapshot, ignore).verified
        assert hub.state.traffic.count("xet-write-token") > 0
        assert hub.state.traffic.count(UPLOAD) == 0
        assert hub.files(REPO)["checkpoint-20/optimizer.bin"] == FILES["optimizer.bin"]
        hub.state.accounts.tokens.clear()
        with pytest.raises(PublishError, match="token_invalid"):
            destination.publish(take_checkpoint(tmp_path, 40, FILES | {"optimizer.bin": os.urandom(9)}), ignore)


def test_an_entry_must_not_name_two_repositories() -> None:
    with pytest.raises(ConfigError):
        HuggingFaceDestination.from_entry({"repo_id": REPO, "own_repo": "x"}, "entry")
