"""`flowtuner check`: every finding at once, nothing started."""

from __future__ import annotations

from collections.abc import Sequence

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.findings import load_and_inspect, report_findings


def run(argv: Sequence[str]) -> int:
    """Checks a configuration; 0 if a run could start, 2 if not."""
    parser = make_parser("check", "Finds everything that is wrong with a configuration; starts nothing.")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="write the findings as JSON")
    known, source = parse_source(parser, argv)
    loaded, findings = load_and_inspect(source)
    return report_findings(loaded, findings, known.json)
