"""`flowtuner reproduce`: runs a finished run again from its capsule and compares the weights, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowtuner.cli.arguments import make_parser


def run(argv: Sequence[str]) -> int:
    """Trains again, publishes nothing, and says whether the same bytes came out."""
    parser = make_parser("reproduce", "Runs a finished run again and compares the final weights, byte by byte.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the output folder of the run, or its capsule.json")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="where to train (default: RUN-reproduced)")
    parser.add_argument("--json", action="store_true", help="write one JSON object per event to stdout")
    parser.epilog = "Any option may follow as --name=value: for secrets, which a capsule does not hold."
    known, flags = parser.parse_known_args(argv)
    folder = known.run if known.run.is_dir() else known.run.parent.parent
    target = known.into or folder.with_name(f"{folder.resolve().name}-reproduced")

    from flowtuner.cli.reproduction import reproduce

    return reproduce(known.run, target.expanduser().absolute(), tuple(flags), as_json=known.json)
