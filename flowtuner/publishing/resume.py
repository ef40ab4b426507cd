"""Where a run goes on when the checkpoint is not on this disk: the URI that was given, or what destinations hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flowtuner.engine.checkpoints import (
    MANIFEST,
    STATE,
    check_identity,
    find_newest,
    identity_of,
    is_address,
)
from flowtuner.engine.lineage import describe_data, find_differences, saved_identity
from flowtuner.errors import CheckpointError, ConfigError, DestinationDown, Fault, PublishError
from flowtuner.options import LoadedConfig
from flowtuner.publishing.destination import Destination, Place
from flowtuner.publishing.manifest import Manifest
from flowtuner.publishing.registry import known_destinations, stored_destinations

OPTION = "resume_from_checkpoint"
EXAMPLES = "s3://bucket/folder/run, file:///mnt/share/run/checkpoint-500, or a link below a destination's own address"


@dataclass(frozen=True)
class ResumePoint:
    """A published checkpoint that a run goes on from; `is_exact` if it was named and not only its run."""

    destination: Destination
    manifest: Manifest
    is_exact: bool = False
    is_adopted: bool = False

    @property
    def uri(self) -> str:
        """How people call it."""
        return self.destination.uri_of(self.manifest) or f"{self.manifest.name} at {self.destination.name}"


def look_for_resume(
    loaded: LoadedConfig, destinations: Sequence[Destination], *, opens_blocks: bool
) -> tuple[ResumePoint | None, tuple[Fault, ...]]:
    """The published checkpoint that a run is to go on from, and the faults that keep it from going on.

    Without the stored blocks, what only they may know is left to the run's first task, as is looking at every picture.
    """
    uri = str(loaded.config.resume_from_checkpoint)
    if not opens_blocks and uri.lower().startswith("http") and not any(each.follow(uri) for each in destinations):
        return None, ()
    stored = stored_destinations if opens_blocks else tuple
    try:
        return find_published(
            loaded, destinations, stored, partial(describe_data, loaded) if opens_blocks else None
        ), ()
    except ConfigError as error:
        return None, error.faults
    except (PublishError, DestinationDown) as error:
        return None, (Fault(OPTION, uri, "", str(error)),) if opens_blocks else ()


def find_published(
    loaded: LoadedConfig,
    destinations: Sequence[Destination],
    stored: Callable[[], Iterable[Destination]] = tuple,
    data_digest: Callable[[], str] | None = None,
) -> ResumePoint | None:
    """The published checkpoint that a run is to go on from, None if there is none or it is on this disk.

    Raises ConfigError when what was asked for is not there or is another run's.
    """
    config = loaded.config
    if is_address(config.resume_from_checkpoint):
        return _find_named(str(config.resume_from_checkpoint), loaded, destinations, stored)
    wants_newest = config.resume_from_checkpoint == "latest" and config.resume_from_published
    if not wants_newest or find_newest(Path(config.output_dir)):
        return None
    return _find_own(loaded, destinations, data_digest)


def open_address(
    uri: str, destinations: Iterable[Destination], stored: Callable[[], Iterable[Destination]] = tuple
) -> tuple[Destination, Place]:
    """The destination that a URI leads to: one of these, one that is kept as a block, or one of its own."""
    sources: list[Callable[[], Iterable[Destination]]] = [lambda: destinations, stored]
    for known in sources:
        followed = [(destination, found) for destination in known() if (found := destination.follow(uri))]
        # One account may have several entries: the one whose base path is meant knows best how to reach it.
        followed.sort(key=lambda pair: pair[0] != pair[1][0])
        if followed:
            return followed[0][1]
    for kind in known_destinations().values():
        entry = kind.entry_of_uri(uri)
        found = kind.from_entry(entry, OPTION).follow(uri) if entry else None
        if found:
            return found
    problem = "no destination has this address"
    hint = "correct it, or add the destination to publishing_config"
    raise ConfigError([Fault(OPTION, uri, "", problem, f"latest, a name, a path, {EXAMPLES}", hint)])


def is_resumable(manifest: Manifest) -> bool:
    """Whether a published unit has what going on needs; include and exclude may have left it out."""
    return manifest.kind == "checkpoint" and {MANIFEST, STATE} <= {record.path for record in manifest.files}


def _find_named(
    uri: str,
    loaded: LoadedConfig,
    destinations: Sequence[Destination],
    stored: Callable[[], Iterable[Destination]],
) -> ResumePoint:
    destination, place = open_address(uri, destinations, stored)
    units = destination.units(place.run)
    wanted = [unit for unit in units if is_resumable(unit) and place.name in (None, unit.name)]
    if not wanted:
        known = ", ".join(unit.name for unit in units) or "nothing"
        problem = f"there is no {place.name or 'checkpoint to go on from'} of {place.run} at {destination.name}"
        raise ConfigError([Fault(OPTION, uri, "", problem, f"what is published there whole: {known}")])
    manifest = wanted[-1]
    try:
        told = manifest.metadata.get("training") or {}
        check_identity(saved_identity(manifest.step, told), identity_of(loaded.config), Path(manifest.name))
    except CheckpointError as error:
        raise ConfigError([Fault(OPTION, uri, "", str(error))]) from error
    return ResumePoint(destination, manifest, is_exact=place.name is not None)


def _find_own(
    loaded: LoadedConfig, destinations: Sequence[Destination], data_digest: Callable[[], str] | None
) -> ResumePoint | None:
    run = Path(loaded.config.output_dir).name
    found: list[ResumePoint] = []
    for destination in destinations:
        checkpoints = [unit for unit in destination.units(run) if is_resumable(unit)]
        found += [ResumePoint(destination, checkpoints[-1], is_adopted=True)] if checkpoints else []
    faults = [fault for point in found if (fault := _refuse_stranger(point, loaded, data_digest))]
    if faults:
        raise ConfigError(faults)
    return max(found, key=lambda point: (point.manifest.created, point.manifest.step), default=None)


def _refuse_stranger(point: ResumePoint, loaded: LoadedConfig, data_digest: Callable[[], str] | None) -> Fault | None:
    about, config = point.manifest.metadata, loaded.config
    differences = find_differences(about.get("training") or {}, config)
    if not differences and about.get("data_set") and data_digest and data_digest() != about["data_set"]:
        differences = ["it was trained on other pictures or captions"]
    if not differences:
        return None
    run = Path(config.output_dir).name
    return Fault(
        OPTION,
        config.resume_from_checkpoint,
        "",
        f"{point.destination.name} already holds {point.manifest.name} of another run named {run}: "
        f"{'; '.join(differences)}. Publishing this one would push that one out",
        suggestion=f"to go on from it all the same: --{OPTION}={point.uri}; to start afresh: another output_dir or "
        f"base_path, or an empty --{OPTION}=",
    )
