"""Everything that can be known before a run starts, collected and shown together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtuner.cli.exits import Exit, code_for
from flowtuner.cli.output import tell, write, write_json
from flowtuner.errors import ConfigError

if TYPE_CHECKING:
    from flowtuner.cli.arguments import Source
    from flowtuner.engine.findings import Finding
    from flowtuner.options import LoadedConfig


def inspect_destinations(entries: Sequence[Mapping[str, Any]] | None, output_dir: Path) -> list[Finding]:
    """Checks where results are to be published, down to a small file that is written, read and deleted."""
    if not entries:
        return []
    from flowtuner.jobs.inspection import findings_of
    from flowtuner.publishing.preflight import probe_destinations
    from flowtuner.publishing.registry import open_destinations

    # A stored block is in the Prefect server, which may not be running yet: the run's first task looks.
    inline = [entry for entry in entries if "block" not in entry]
    try:
        return findings_of(probe_destinations(open_destinations(inline), output_dir).faults)
    except ConfigError as error:
        return findings_of(error.faults)


def load_and_inspect(source: Source, *, will_publish: bool = True) -> tuple[LoadedConfig | None, list[Finding]]:
    """Loads the options and inspects the run; if the options are wrong, their faults are the findings."""
    from flowtuner.engine.findings import Finding
    from flowtuner.jobs.inspection import collect_findings
    from flowtuner.publishing.checks import check_publishing

    try:
        loaded = source.load([check_publishing])
    except ConfigError as error:
        return None, [Finding("error", "options", str(fault)) for fault in error.faults]
    return loaded, collect_findings(loaded, will_publish=will_publish)


def code_of(findings: Iterable[Finding]) -> Exit:
    """The exit code of a check that found this."""
    errors = [finding.check for finding in findings if finding.level == "error"]
    return code_for(errors) if errors else Exit.OK


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether the run must not start."""
    return any(finding.level == "error" for finding in findings)


def tell_findings(findings: Sequence[Finding]) -> None:
    """Lists the findings for the person who watches, errors first."""
    for level in ("error", "warning"):
        for finding in findings:
            if finding.level == level:
                tell(f"{level}: {finding}")


def report_findings(loaded: LoadedConfig | None, findings: Sequence[Finding], as_json: bool) -> int:
    """Writes the result of a check, and answers with its exit code."""
    errors = sum(finding.level == "error" for finding in findings)
    warnings = len(findings) - errors
    if as_json:
        write_json({"ok": not errors, "findings": [vars(finding) for finding in findings]} | _plan_of(loaded))
    else:
        tell_findings(findings)
        write(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}. {_verdict(loaded, errors)}")
    return code_of(findings)


def _plan_of(loaded: LoadedConfig | None) -> dict[str, Any]:
    if loaded is None:
        return {}
    config = loaded.config
    names = ("model_family", "model_type", "output_dir", "max_train_steps", "num_train_epochs", "train_batch_size")
    return {"plan": {name: getattr(config, name) for name in names}}


def _verdict(loaded: LoadedConfig | None, errors: int) -> str:
    if errors or loaded is None:
        return "Nothing was started."
    config = loaded.config
    length = f"{config.max_train_steps} steps" if config.max_train_steps else f"{config.num_train_epochs} epochs"
    return f"Ready to train {config.model_family} ({config.model_type}) for {length} into {config.output_dir}."


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
