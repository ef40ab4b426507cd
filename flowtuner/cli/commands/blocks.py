"""`flowtuner blocks`: registers the types of our blocks, so that Prefect's UI offers them as forms."""

from __future__ import annotations

from collections.abc import Sequence

from flowtuner.cli.arguments import make_parser
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import write


def run(argv: Sequence[str]) -> int:
    """Registers the block types on the configured Prefect server, or on the local one; again changes nothing."""
    parser = make_parser("blocks", "Registers the types of Flowtuner's blocks with Prefect.")
    parser.add_argument("verb", choices=("register",), help="what to do")
    parser.parse_args(argv)

    from flowtuner.cli.flow import quiet_prefect
    from flowtuner.jobs.deploy import register_block_types

    with quiet_prefect():
        for slug in register_block_types():
            write(slug)
    return Exit.OK
