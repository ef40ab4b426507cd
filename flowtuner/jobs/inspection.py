"""Everything that can be known before a run starts, for every door that a run may come through."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from flowtuner import durable
from flowtuner.engine.estimate import estimate_checkpoint
from flowtuner.engine.findings import Finding
from flowtuner.engine.preflight import inspect_run
from flowtuner.errors import WOULD_LOSE_RESULTS, ConfigError, Fault
from flowtuner.options import LoadedConfig, load
from flowtuner.publishing.checks import check_publishing
from flowtuner.publishing.preflight import inspect_publishing
from flowtuner.telling.hooks import find_faults


@dataclass(frozen=True)
class Inspection:
    """What was found about a run that somebody wants."""

    loaded: LoadedConfig | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[str, ...]:
        """What keeps it from starting."""
        return tuple(str(finding) for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should know."""
        return tuple(str(finding) for finding in self.findings if finding.level == "warning")

    @property
    def faults(self) -> list[Fault]:
        """The same as faults of a configuration."""
        errors = (finding for finding in self.findings if finding.level == "error")
        return [Fault(each.check, None, "", each.message, suggestion=each.fix) for each in errors]

    @property
    def is_valid(self) -> bool:
        """Whether it may start."""
        return self.loaded is not None and not self.errors

    @classmethod
    def of_faults(cls, faults: Iterable[Fault]) -> Self:
        """Faults that were found before anything could be looked at."""
        return cls(None, tuple(Finding("error", fault.option, _without(fault)) for fault in faults))


def collect_findings(loaded: LoadedConfig, *, will_publish: bool = True) -> list[Finding]:
    """Looks at the model, the data, the disk, the resume point and the destinations; starts nothing."""
    hooks = [Finding("error", fault.option, _without(fault)) for fault in find_faults(loaded.config.webhook_config)]
    return [*inspect_run(loaded), *hooks, *(_inspect_publishing(loaded) if will_publish else ())]


def inspect_file(path: Path, config_dir: Path, *, fills_in: bool = True) -> Inspection:
    """Loads a configuration file and looks at all that it names; may leave `{env:NAME}` as it is."""
    try:
        loaded = load(config_file=path, config_dir=config_dir, checks=[check_publishing], fills_in=fills_in)
    except ConfigError as error:
        return Inspection.of_faults(error.faults)
    return Inspection(loaded, tuple(collect_findings(loaded)))


def inspect_values(config: Mapping[str, Any], config_dir: Path, beside: Path, *, fills_in: bool = True) -> Inspection:
    """The same for options that stand in no file; relative paths mean what they would in `beside`."""
    with _lent_file(config, beside.parent if beside.parent.is_dir() else config_dir) as path:
        return inspect_file(path, config_dir, fills_in=fills_in)


def findings_of(faults: Iterable[Fault]) -> list[Finding]:
    """Faults of destinations as findings."""
    return [
        Finding("error", fault.option, _without(fault))
        if fault.option == WOULD_LOSE_RESULTS
        else Finding("error", "publishing", str(fault))
        for fault in faults
    ]


def _inspect_publishing(loaded: LoadedConfig) -> Iterator[Finding]:
    found = inspect_publishing(loaded, estimate_checkpoint(loaded.config), opens_blocks=False)
    yield from findings_of(found.faults)
    for warning in found.warnings:
        option, _, message = warning.partition(": ")
        yield Finding("warning", option, message)


def _without(fault: Fault) -> str:
    return str(fault).removeprefix(f"{fault.option}: ")


@contextlib.contextmanager
def _lent_file(config: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".inspected-{secrets.token_hex(4)}.json"
    try:
        durable.write_json(path, dict(config))
        yield path
    finally:
        path.unlink(missing_ok=True)
