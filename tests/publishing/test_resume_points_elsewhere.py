"""Where a run goes on when the checkpoint is elsewhere: found, refused when it is another run's, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.folder import FolderDestination
from flowtuner import durable
from flowtuner.engine.checkpoints import SavedState, identity_of, write_checkpoint
from flowtuner.engine.lineage import describe_data, describe_training
from flowtuner.errors import ConfigError
from flowtuner.options import LoadedConfig, load
from flowtuner.publishing.resume import find_published, open_address
from flowtuner.publishing.snapshot import checkpoint_unit, freeze, release_unit
from tests.conftest import draw_pictures, tiny_options

Configure = Callable[..., LoadedConfig]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """A configuration whose output folder may lie on another machine's disk; the pictures are the same everywhere."""
    model = tmp_path / "models/tiny"
    model.mkdir(parents=True)

    def make(machine: str = "new", **options: Any) -> LoadedConfig:
        pictures = draw_pictures(tmp_path / machine / "pictures", options.pop("count", 2))
        values = tiny_options(tmp_path / machine, model, pictures, output_dir=str(tmp_path / machine / "run 1"))
        return load(values=values | options, environ={})

    return make


@pytest.fixture
def share(tmp_path: Path) -> FolderDestination:
    (tmp_path / "share").mkdir()
    return FolderDestination(path=tmp_path / "share", base_path="team")


def publish(destination: FolderDestination, loaded: LoadedConfig, *steps: int) -> None:
    """What a run on another machine has published there."""
    config = loaded.config
    about = {"training": describe_training(config), "data_set": describe_data(loaded)}
    for step in steps:
        folder = Path(config.output_dir) / f"checkpoint-{step}"
        state = SavedState(step, step, 0, 1, identity_of(config), about["data_set"])
        write_checkpoint(folder, state, lambda part: (part / "optimizer.bin").write_text("moments"), {})()
        snapshot = freeze(checkpoint_unit(folder, "r", step, about)).seal()
        manifest = replace(snapshot.manifest, created=f"2026-01-01T00:00:{step:02}+00:00")
        destination.publish(replace(snapshot, manifest=manifest), lambda done, total: None)


def find(loaded: LoadedConfig, destination: FolderDestination) -> Any:
    return find_published(loaded, [destination], data_digest=lambda: describe_data(loaded))


def test_an_empty_disk_goes_on_from_the_newest_published(configure: Configure, share: FolderDestination) -> None:
    publish(share, configure("old"), 2, 10)
    point = find(configure(), share)
    assert (point.manifest.name, point.is_adopted) == ("checkpoint-10", True)
    target = Path(configure().config.output_dir) / "checkpoint-10"
    point.destination.fetch(point.manifest, target, lambda done, total: None)
    assert find(configure(), share) is None  # from now on the checkpoint is on this disk


def test_it_can_be_turned_off(configure: Configure, share: FolderDestination) -> None:
    publish(share, configure("old"), 2)
    assert find(configure(resume_from_published=False), share) is None
    assert find(configure(resume_from_checkpoint=""), share) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model_type": "lora"}, "model_type was 'full', is 'lora'"),
        ({"learning_rate": 5e-4}, "learning_rate was 0.001, is 0.0005"),
        ({"seed": 7}, "seed was 1337, is 7"),
        ({"count": 3}, "other pictures or captions"),
    ],
)
def test_another_run_of_the_same_name_is_never_gone_on_from(
    configure: Configure, share: FolderDestination, options: dict[str, Any], named: str
) -> None:
    publish(share, configure("old"), 2)
    with pytest.raises(ConfigError) as caught:
        find(configure(**options), share)
    assert named in str(caught.value)
    assert "--resume_from_checkpoint=file:///" in str(caught.value)


def test_more_steps_another_disk_and_another_destination_are_the_same_run(
    configure: Configure, share: FolderDestination
) -> None:
    publish(share, configure("old"), 2)
    longer = configure(max_train_steps=99, gradient_checkpointing=True, publishing_config=[])
    assert find(longer, share).manifest.step == 2


def test_a_uri_names_a_checkpoint_or_the_newest_of_a_run(configure: Configure, share: FolderDestination) -> None:
    publish(share, configure("old"), 2, 10)
    run = f"{share.path.as_uri()}/team/run%201"
    for uri, step, is_exact in ((run, 10, False), (f"{run}/checkpoint-2", 2, True)):
        for known in ([share], []):  # an entry's, or its own
            point = find_published(configure(resume_from_checkpoint=uri), known)
            assert point is not None
            assert (point.manifest.step, point.is_exact, point.is_adopted) == (step, is_exact, False)


@pytest.mark.parametrize(
    ("end", "named"),
    [
        ("team/run%201/checkpoint-3", "there is no checkpoint-3 of run 1"),
        ("team/nobodys", "no checkpoint to go on from of nobodys"),
    ],
)
def test_a_uri_that_leads_nowhere_says_what_is_there(
    configure: Configure, share: FolderDestination, end: str, named: str
) -> None:
    publish(share, configure("old"), 2)
    with pytest.raises(ConfigError) as caught:
        find_published(configure(resume_from_checkpoint=f"{share.path.as_uri()}/{end}"), [share])
    assert named in str(caught.value)


def test_a_uri_of_another_model_type_is_refused_as_on_this_disk(configure: Configure, share: FolderDestination) -> None:
    publish(share, configure("old"), 2)
    uri = f"{share.path.as_uri()}/team/run%201"
    with pytest.raises(ConfigError, match="model_type was 'full', now 'lora'"):
        find_published(configure(resume_from_checkpoint=uri, model_type="lora"), [share])
    assert find_published(configure(resume_from_checkpoint=uri, learning_rate=5e-4), [share])


def test_what_cannot_be_gone_on_from_is_passed_over(configure: Configure, share: FolderDestination) -> None:
    old = configure("old")
    lean = share.model_copy(update={"exclude": ["training_state.json"]})
    publish(share, old, 2)
    publish(lean, old, 10)
    (Path(old.config.output_dir) / "README.md").write_text("card")
    share.publish(freeze(release_unit(Path(old.config.output_dir), "r", 10, {})).seal(), lambda done, total: None)
    assert find(configure(), share).manifest.step == 2
    with pytest.raises(ConfigError, match=r"published there whole: .*release"):
        find_published(configure(resume_from_checkpoint=f"{share.path.as_uri()}/team/run%201/checkpoint-10"), [share])


def test_an_unknown_address_says_what_one_looks_like() -> None:
    with pytest.raises(ConfigError, match="s3://bucket/folder/run"):
        open_address("gopher://somewhere/run", [])


def test_of_two_entries_the_one_whose_base_path_is_meant_is_asked(share: FolderDestination) -> None:
    wide = share.model_copy(update={"base_path": "", "name": "wide"})
    for order in ([wide, share], [share, wide]):
        found, place = open_address(f"{share.path.as_uri()}/team/run", order)
        assert (found.name, place.run) == (share.name, "run")


def test_a_run_folder_is_a_place_to_go_on_from(configure: Configure, share: FolderDestination) -> None:
    from flowtuner.engine.checkpoints import find_resume_point

    publish(share, configure("old"), 2, 10)
    folder = share.path / "team/run 1"
    durable.write_text(folder / "checkpoint-12/optimizer.bin", "half an upload")
    found = find_resume_point(Path(configure().config.output_dir), str(folder), lambda warning: None)
    assert found == folder / "checkpoint-10"
