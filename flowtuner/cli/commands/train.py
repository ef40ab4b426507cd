"""`flowtuner train`: the run itself, or with --dry-run only its check."""

from __future__ import annotations

from collections.abc import Sequence

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.findings import load_and_inspect, report_findings


def run(argv: Sequence[str]) -> int:
    """Trains, validates and publishes what the options describe."""
    parser = make_parser("train", "Trains a model: check, cache, train, validate, publish.")
    add_source(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything, start nothing")
    parser.add_argument("--json", action="store_true", help="write one JSON object per event to stdout")
    known, source = parse_source(parser, argv)
    if known.dry_run:
        loaded, findings = load_and_inspect(source)
        return report_findings(loaded, findings, known.json)

    from flowtuner.cli.training import run_training

    return run_training(source, as_json=known.json)
