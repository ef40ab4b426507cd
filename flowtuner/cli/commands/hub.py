"""`flowtuner hub`: the checks before a run trusts the Hub (preflight), what stands there (where), a new repository."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtuner.cli.arguments import Source, add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write, write_json

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig
    from flowtuner.publishing.checklist import Check
    from flowtuner.publishing.hub import HubDestination

ABOUT = "Looks after a run's repository on the Hugging Face Hub."


def run(argv: Sequence[str]) -> int:
    """Checks, looks or creates; whatever is wrong comes with what to do about it."""
    parser = make_parser("hub", ABOUT)
    parser.add_argument("what", choices=("preflight", "where", "create"))
    parser.add_argument(
        "target", metavar="REPO", nargs="?", help="owner/name; for `where` an output folder will do too"
    )
    parser.add_argument("--public", action="store_true", help="create a repository that everybody sees")
    parser.add_argument("--json", action="store_true", help="write JSON")
    add_source(parser)
    known, source = parse_source(parser, argv)
    if known.target and known.target.startswith("-"):
        parser.error(f"{known.target} is no repository")
    return {"preflight": _preflight, "where": _where, "create": _create}[known.what](known, source)


def _preflight(known: argparse.Namespace, source: Source) -> int:
    from flowtuner.publishing.checklist import Check, failures
    from flowtuner.publishing.hub import hub_entries

    config = None if known.target else source.load().config
    checks: list[Check] = list(_about_options(config)) if config else []
    for entry in _entries(known.target, config):
        checks += _open(entry).inspect(Path(config.output_dir) if config else None)
    if config and not hub_entries(config):
        fix = "Set push_to_hub=true and hub_model_id=owner/name."
        checks.append(Check("push_off", "the results go to the Hub", "fail", "push_to_hub is off.", fix))
    _report(checks, known.json)
    return Exit.CONFIGURATION if failures(checks) else Exit.OK


def _where(known: argparse.Namespace, source: Source) -> int:
    from flowtuner.publishing.hub import remembered_hub, uploads_under_way

    folder = Path(known.target).expanduser() if known.target else None
    if folder is not None and folder.is_dir():
        entries, under_way = remembered_hub(folder), uploads_under_way(folder)
    else:
        config = None if known.target else source.load().config
        entries = list(_entries(known.target, config))
        under_way = uploads_under_way(Path(config.output_dir)) if config else []
    found = [_open(entry).where() for entry in entries]
    if known.json:
        write_json({"repositories": found, "under_way": under_way})
        return Exit.OK
    for each in found:
        _describe(each)
    for name in under_way:
        write(f"still being uploaded: {name}. Wait a few minutes.")
    if not found:
        tell("Nothing of this goes to the Hub. Set push_to_hub=true and hub_model_id=owner/name.")
    return Exit.OK if found else Exit.CONFIGURATION


def _create(known: argparse.Namespace, source: Source) -> int:
    config = None if known.target else source.load().config
    for entry in _entries(known.target, config):
        visibility = {"private": False} if known.public else {}
        write(f"{_open({**entry, **visibility}).create()} is made")
    return Exit.OK


def _about_options(config: TrainingConfig) -> Iterator[Check]:
    from flowtuner.publishing.checklist import Check

    what = "an interrupted run can go on"
    saves = config.checkpoint_step_interval or config.checkpoint_epoch_interval
    strategies = [entry.get("hub_strategy", "all_checkpoints") for entry in _entries(None, config)]
    if strategies and not {"checkpoint", "all_checkpoints"} & set(strategies):
        fix = "Set hub_strategy=checkpoint, so that a run goes on from the Hub on another machine."
        yield Check("checkpoints_stay", what, "warn", "checkpoints stay on this machine.", fix)
    if strategies and not saves:
        yield Check("no_checkpoints", what, "warn", "no interval says when to save.", "Set checkpoint_step_interval.")
    if strategies and not config.checkpoints_total_limit:
        reason = "all checkpoints are kept, here and there."
        yield Check("no_limit", "space is bounded", "warn", reason, "Set checkpoints_total_limit, such as 3.")


def _entries(target: str | None, config: TrainingConfig | None) -> Iterator[dict[str, Any]]:
    from flowtuner.publishing.hub import PROVIDER, hub_entries

    if target:
        yield {"provider": PROVIDER, "repo_id": target}
    elif config:
        yield from hub_entries(config)


def _open(entry: Mapping[str, Any]) -> HubDestination:
    from flowtuner.publishing.hub import open_hub

    return open_hub(entry)


def _report(checks: Sequence[Check], as_json: bool) -> None:
    if as_json:
        write_json([vars(check) for check in checks])
        return
    for check in checks:
        write(f"[{check.state}] {check.what}: {check.code}{f': {check.reason}' if check.reason else ''}")
        if check.fix and check.state != "pass":
            write(f"       {check.fix}")


def _describe(found: Mapping[str, Any]) -> None:
    kind = "private: only you and its members see it" if found["private"] else "public"
    write(f"{found['url']} is there, {kind}; its newest commit is {found['commit'][:10]} of {found['changed']}")
    for unit in found["units"]:
        write(f"  {unit['what']}: step {unit['step']} of {unit['run']}, {unit['files']} files, {unit['bytes']} bytes")
    if not found["units"]:
        write("  it holds nothing that a run has published")
