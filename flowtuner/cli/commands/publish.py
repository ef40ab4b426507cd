"""`flowtuner publish`: brings a finished run to its destinations, says what stands there, proves and mends it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.findings import code_of, inspect_destinations, tell_findings
from flowtuner.cli.output import tell, write, write_json
from flowtuner.cli.targets import Wanted, find_folder, read_targets
from flowtuner.publishing.hub import publishing_entries

if TYPE_CHECKING:
    from flowtuner.publishing.audit import Holding
    from flowtuner.publishing.destination import Destination

PUBLISH = "flows.publish:publish"
VERBS = ("verify", "repair", "list")


def run(argv: Sequence[str]) -> int:
    """Publishes, or does what the first word says; unchanged files stay where they are, so doing it again is cheap."""
    verb = argv[0] if argv and argv[0] in VERBS else ""
    known, source = parse_source(_parser(verb), argv[1:] if verb else argv)
    folder = find_folder(known.path)
    entries = publishing_entries(source.load().config) if known.config or known.env or source.flags else []
    wanted = read_targets(known.to, entries)
    if verb in ("verify", "list"):
        return _look(verb, folder, wanted, known)

    output_dir = _output_dir(folder)
    findings = inspect_destinations([each for each in wanted if isinstance(each, dict)], output_dir)
    if findings:
        tell_findings(findings)
        return code_of(findings)

    from flowtuner.cli.flow import FlowCall, run_flow
    from flowtuner.publishing.door import conceal_destinations

    asked: dict[str, Any] = {"path": str(folder), "destinations": wanted or None}
    # Not the option of a file: its placeholders may hold secrets, and parameters stand in Prefect.
    script = known.post_upload_script
    parameters = asked | {"everything": known.all, "repair": verb == "repair", "post_upload_script": script}
    return run_flow(FlowCall(PUBLISH, parameters, output_dir, conceal_destinations), known.json)


def _parser(verb: str) -> argparse.ArgumentParser:
    about = {
        "": "Publishes a run's output folder, one checkpoint or another program's model, and proves that it arrived.",
        "verify": "Looks at what destinations hold of a run; exit code 1 if anything is missing or wrong.",
        "repair": "Publishes again what is missing or has other bytes than it should; reads every byte that is there.",
        "list": "Lists what destinations hold of a run.",
    }
    parser = make_parser(f"publish {verb}".strip(), about[verb])
    parser.add_argument("path", metavar="PATH|RUN", help="output folder, checkpoint, environment or run id")
    parser.add_argument(
        "--to", metavar="WHERE", action="append", default=[],
        help="a folder, hf://owner/name, an entry as JSON, the name of an entry or of a stored block; may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="write JSON to stdout")
    if verb == "verify":
        parser.add_argument("--deep", action="store_true", help="read every byte that is there")
    if verb in ("", "repair"):
        parser.add_argument("--all", action="store_true", help="of another program's folder all, not only the model")
        parser.add_argument(
            "--post-upload-script", "--post_upload_script", metavar="COMMAND",
            help="call this for everything of a run that a destination was just seen to hold",
        )  # fmt: skip
    add_source(parser)
    parser.epilog = "Without --to, --config or --env the destinations are those of the run that made PATH."
    if not verb:
        parser.epilog += " Also: publish verify, publish repair, publish list."
    return parser


def _output_dir(folder: Path) -> Path:
    return folder.parent if folder.name.startswith("checkpoint-") else folder


def _look(verb: str, folder: Path, wanted: Sequence[Wanted], known: argparse.Namespace) -> int:
    from flowtuner.publishing.audit import list_holdings, verify_holdings

    run_name = _output_dir(folder).name
    destinations = _open(wanted, _output_dir(folder))
    if verb == "list":
        holdings = list_holdings(destinations, run_name)
    else:
        expected = [folder.name] if folder != _output_dir(folder) else []
        holdings = verify_holdings(destinations, run_name, expected, deep=known.deep)
    if known.json:
        write_json([asdict(holding) for holding in holdings])
    else:
        _tell(holdings, run_name)
    return Exit.OK if holdings and all(holding.is_whole for holding in holdings) else Exit.FAILED


def _open(wanted: Sequence[Wanted], output_dir: Path) -> list[Destination]:
    from flowtuner.cli.flow import quiet_prefect
    from flowtuner.publishing.memory import find_entries, recall_entries
    from flowtuner.publishing.registry import open_wanted

    asked = list(wanted) or recall_entries(output_dir)
    if all(isinstance(each, dict) and "block" not in each for each in asked):
        return open_wanted(asked)
    with quiet_prefect():  # blocks are kept there
        return open_wanted(asked, find_entries(output_dir))


def _tell(holdings: Sequence[Holding], run_name: str) -> None:
    from flowtuner.cli.display import format_bytes

    if not holdings:
        tell(f"flowtuner: nothing of {run_name} is published there")
    for holding in holdings:
        if holding.name and not holding.faults:
            size = f"{holding.files} files, {format_bytes(holding.bytes)}"
            write(
                f"{holding.destination}  {holding.name}  step {holding.step}  {holding.created}  {size}  {holding.uri}"
            )
        for fault in holding.faults:
            tell(f"{holding.destination}: {holding.name + ': ' if holding.name else ''}{fault}")
