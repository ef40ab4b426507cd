"""`flowtuner cache`: fills the caches, or explains why a file is or is not in them."""

from __future__ import annotations

from collections.abc import Sequence

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import write, write_json


def run(argv: Sequence[str]) -> int:
    """Caches, or explains with `explain`."""
    if argv[:1] == ["explain"]:
        return _explain(argv[1:])
    parser = make_parser("cache", "Encodes captions and pictures, no more. Also: flowtuner cache explain FILE")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON object per event to stdout")
    known, source = parse_source(parser, argv)

    from flowtuner.cli.training import CACHE, run_checked

    return run_checked(CACHE, source, known.json)


def _explain(argv: Sequence[str]) -> int:
    parser = make_parser("cache explain", "Says why a picture, or a caption, is or is not in the caches.")
    parser.add_argument("subject", metavar="FILE", help="a picture's path, or a caption's text")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="write JSON")
    known, source = parse_source(parser, argv)

    from flowtuner.cli.caches import explain_subject

    explanations = explain_subject(source.load(), known.subject)
    if known.json:
        write_json([vars(explanation) for explanation in explanations])
    else:
        for explanation in explanations:
            write(explanation)
    return Exit.OK if all(explanation.is_hit for explanation in explanations) else Exit.FAILED
