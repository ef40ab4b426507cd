"""`flowtuner destination`: keeps a destination under a name, lists them, and tests whether one can be written."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtuner.cli.arguments import add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write, write_json
from flowtuner.cli.targets import read_entries, read_targets
from flowtuner.errors import ConfigError, DestinationDown, Fault, PublishError

if TYPE_CHECKING:
    from flowtuner.publishing.destination import Destination

VERBS = ("add", "list", "test")


def run(argv: Sequence[str]) -> int:
    """Adds, lists or tests destinations; they are kept in Prefect, with their credentials."""
    verb = argv[0] if argv and argv[0] in VERBS else ""
    return {"add": _add, "list": _list, "test": _test, "": _explain}[verb](argv[1:] if verb else argv)


def _explain(argv: Sequence[str]) -> int:
    parser = make_parser("destination", "Keeps destinations under names, lists them, tests them.")
    parser.add_argument("verb", choices=VERBS, help="what to do")
    parser.parse_args(argv)
    return Exit.CONFIGURATION  # argparse has refused what is none of them


def _add(argv: Sequence[str]) -> int:
    parser = make_parser("destination add", "Keeps a destination under a name, after a small file was written there.")
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits and dashes")
    parser.add_argument(
        "settings", metavar="SETTING", nargs="+", help="an entry as JSON, a file with it, - for stdin, or KEY=VALUE ..."
    )
    parser.add_argument("--untested", action="store_true", help="keep it even if it cannot be written now")
    parser.epilog = "Everybody on the machine sees a command line: write secrets as KEY={env:NAME}, or use a file."
    known = parser.parse_args(argv)
    entry = _read_settings(known.settings)

    from flowtuner.cli.flow import quiet_prefect
    from flowtuner.publishing.registry import open_destinations, store_entry

    [destination] = open_destinations([entry], "destination")
    if not known.untested and not _probe(destination):
        return Exit.FAILED
    with quiet_prefect():
        store_entry(entry, known.name)
    write(f'{known.name} is kept: {{"provider": "{destination.provider}", "block": "{known.name}"}}')
    return Exit.OK


def _list(argv: Sequence[str]) -> int:
    parser = make_parser("destination list", "Lists the destinations that are kept, and those of a configuration.")
    parser.add_argument("--json", action="store_true", help="write JSON to stdout")
    add_source(parser)
    known, source = parse_source(parser, argv)
    entries = source.load().config.publishing_config if known.config or known.env or source.flags else []

    from flowtuner.cli.flow import quiet_prefect
    from flowtuner.publishing.registry import open_destinations, stored_destinations

    with quiet_prefect():
        rows = [_row(destination, "kept") for destination in stored_destinations()]
        rows += [_row(destination, "configuration") for destination in open_destinations(entries)]
    if known.json:
        write_json(rows)
        return Exit.OK
    for row in rows:
        write("  ".join(str(value) for value in row.values()))
    if not rows:
        tell("no destination is kept; `flowtuner destination add NAME provider=... ...` keeps one")
    return Exit.OK


def _test(argv: Sequence[str]) -> int:
    parser = make_parser("destination test", "Has a destination take, give back and delete a small file.")
    parser.add_argument("where", metavar="NAME", help="its name, a folder, or an entry as JSON")
    add_source(parser)
    known, source = parse_source(parser, argv)
    entries = source.load().config.publishing_config if known.config or known.env or source.flags else []
    wanted = read_targets([known.where], entries)

    from flowtuner.cli.flow import quiet_prefect
    from flowtuner.publishing.registry import open_wanted

    with quiet_prefect():
        destinations = open_wanted(wanted)
        return Exit.OK if all([_probe(destination) for destination in destinations]) else Exit.FAILED


def _read_settings(words: Sequence[str]) -> dict[str, Any]:
    if len(words) == 1 and words[0] == "-":
        text = sys.stdin.read()
    elif len(words) == 1 and Path(words[0]).is_file():
        text = Path(words[0]).read_text(encoding="utf-8")
    elif len(words) == 1 and words[0].lstrip().startswith("{"):
        text = words[0]
    else:
        return _read_pairs(words)
    entries = read_entries(text)
    if len(entries) != 1:
        raise ConfigError([Fault("destination", None, "", "is a list of several entries", "one entry")])
    return entries[0]


def _read_pairs(words: Sequence[str]) -> dict[str, Any]:
    from json import dumps

    pairs = [word.partition("=") for word in words]
    if not all(key and is_pair for key, is_pair, _ in pairs):
        raise ConfigError([Fault("destination", None, "", "is no setting", "KEY=VALUE, JSON, a file or -")])
    return read_entries(dumps({key: value for key, _, value in pairs}))[0]


def _probe(destination: Destination) -> bool:
    started = time.monotonic()
    try:
        destination.probe()
    except (PublishError, DestinationDown) as error:
        tell(f"flowtuner: {error}")
        return False
    write(f"{destination.name} took, gave back and deleted a small file in {time.monotonic() - started:.1f} s")
    return True


def _row(destination: Destination, origin: str) -> dict[str, Any]:
    need = "required" if destination.required else "optional"
    return {"name": destination.name, "provider": destination.provider, "need": need, "from": origin}
