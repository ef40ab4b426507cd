"""`flowtuner estimate`: what a run takes of memory, disk and time, before anything of it is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.findings import has_errors, load_and_inspect, report_findings
from flowtuner.cli.output import write, write_json


def run(argv: Sequence[str]) -> int:
    """Shows what a run takes; 0 if it fits, 2 if not or if it could not start."""
    parser = make_parser("estimate", "Says what a run takes of memory, disk and time; starts nothing of it.")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="write it as JSON, in bytes and seconds")
    parser.add_argument("--no-probe", action="store_true", help="count only: make no steps with random weights")
    known, source = parse_source(parser, argv)
    loaded, findings = load_and_inspect(source, will_publish=False)
    if loaded is None or has_errors(findings):
        return report_findings(loaded, findings, known.json)
    from flowtuner.engine.sizing.measure import measure

    sizing = measure(loaded, rehearses=not known.no_probe)
    if known.json:
        write_json(asdict(sizing) | {"peak": sizing.peak, "fits": sizing.fits, "seconds": sizing.seconds})
    else:
        write("\n".join(sizing.describe()))
    return Exit.OK if sizing.fits else Exit.CONFIGURATION
