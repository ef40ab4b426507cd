"""`flowtuner cache`: fills the caches, explains why a file is or is not in them, or proves every row of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import write, write_json


def run(argv: Sequence[str]) -> int:
    """Caches; or explains with `explain`, proves with `verify`."""
    if argv[:1] == ["explain"]:
        return _explain(argv[1:])
    if argv[:1] == ["verify"]:
        return _verify(argv[1:])
    parser = make_parser("cache", "Encodes captions and pictures, no more. Also: cache explain FILE, cache verify")
    add_source(parser)
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="fill in N portions, an engine each")
    parser.add_argument("--task-runner", default="threads", metavar="NAME", help="threads (this machine), dask or ray")
    parser.add_argument(
        "--task-runner-options", default="{}", metavar="JSON", help='such as {"address": "tcp://scheduler:8786"}'
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object per event to stdout")
    known, source = parse_source(parser, argv)

    try:
        options = json.loads(known.task_runner_options)
    except ValueError as error:
        parser.error(f"--task-runner-options is no JSON: {error}")
    if known.shards < 1 or not isinstance(options, dict):
        parser.error("--shards is a number from 1, --task-runner-options an object")
    from flowtuner.cli.training import CACHE, run_checked

    where = {"shards": known.shards, "task_runner": known.task_runner, "task_runner_options": options}
    return run_checked(CACHE, source, known.json, where)


def _verify(argv: Sequence[str]) -> int:
    parser = make_parser("cache verify", "Reads every row of the caches and says which are not as they were written.")
    add_source(parser)
    parser.add_argument("--remove", action="store_true", help="remove damaged files: their rows are encoded again")
    parser.add_argument("--json", action="store_true", help="write JSON")
    known, source = parse_source(parser, argv)

    from flowtuner.cli.caches import verify_caches

    proof = verify_caches(source.load(), removes=known.remove)
    if known.json:
        write_json(vars(proof))
    else:
        for path, reason in proof.damaged.items():
            write(f"{path}: {reason}{' (removed)' if path in proof.removed else ''}")
        write(f"{proof.files} files with {proof.rows} rows read, {len(proof.damaged)} damaged.")
    return Exit.FAILED if set(proof.damaged) - set(proof.removed) else Exit.OK


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
