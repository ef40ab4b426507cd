"""`flowtuner publish`: brings a finished run or a checkpoint to its destinations, again or for the first time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.findings import inspect_destinations, tell_findings
from flowtuner.cli.output import tell

PUBLISH = "flows.publish:publish"


def run(argv: Sequence[str]) -> int:
    """Publishes; unchanged files stay where they are, so doing it again is cheap."""
    parser = make_parser("publish", "Publishes a finished output folder or one checkpoint, and proves that it arrived.")
    parser.add_argument("path", metavar="PATH", type=Path, help="an output folder, or a checkpoint-N folder in it")
    parser.add_argument("--to", metavar="FOLDER", type=Path, action="append", default=[], help="publish to this folder")
    parser.add_argument("--json", action="store_true", help="write one JSON object per event to stdout")
    add_source(parser)
    parser.epilog = "Without --to, --config or --env the destinations are those of the run that made PATH."
    known, source = parse_source(parser, argv)
    path = known.path.expanduser().resolve()
    if not path.is_dir():
        tell(f"flowtuner: {known.path} is no folder. Give an output folder or a checkpoint-N folder in it.")
        return Exit.CONFIGURATION
    destinations = _folders(known)
    if known.config or known.env or source.flags:
        destinations += source.load().config.publishing_config or []

    output_dir = path.parent if path.name.startswith("checkpoint-") else path
    findings = inspect_destinations(destinations, output_dir)
    if findings:
        tell_findings(findings)
        return Exit.CONFIGURATION

    from flowtuner.cli.credentials import conceal_destinations
    from flowtuner.cli.flow import FlowCall, run_flow

    parameters = {"path": str(path), "destinations": destinations or None}
    return run_flow(FlowCall(PUBLISH, parameters, output_dir, conceal_destinations), known.json)


def _folders(known: argparse.Namespace) -> list[dict[str, Any]]:
    return [{"provider": "folder", "path": str(folder.expanduser().absolute())} for folder in known.to]
