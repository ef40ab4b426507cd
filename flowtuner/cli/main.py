"""The `flowtuner` command: finds the command's module, runs it, and turns what goes wrong into one clear message."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import MappingProxyType

from flowtuner import __version__
from flowtuner.cli.crash import report_crash
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell
from flowtuner.errors import ConfigError, FlowtunerError

COMMANDS = MappingProxyType(
    {
        "train": "train a model: check, cache, train, validate, publish",
        "check": "find everything that is wrong with a configuration, start nothing",
        "estimate": "what a run takes of memory, disk and time",
        "config": "show the resolved options (show) or their schema (schema)",
        "cache": "encode captions and pictures only (or: cache explain FILE)",
        "publish": "publish a finished run or a checkpoint again (or: publish verify, repair, list)",
        "reproduce": "run a finished run again and compare the weights, byte by byte",
        "destination": "keep destinations under names (add), list them, test them",
        "blocks": "register the block types with Prefect (blocks register)",
        "hub": "check, find or create a run's repository on the Hugging Face Hub",
        "deploy": "register blocks and deployments on the configured Prefect server",
        "server": "serve the HTTP API, with Prefect, a worker and all deployments beside it",
        "jobs": "hand jobs to a server and look after them (submit, list, status, logs, cancel, ...)",
        "demo": "build a tiny model and data set, train, and show that it learned",
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and answers with its exit code."""
    sys.excepthook = report_crash
    argv = list(sys.argv[1:] if argv is None else argv)
    # Only the first word is ours: what follows belongs to the command, which also answers its --help.
    name = _parser().parse_args(argv[:1]).command
    command = importlib.import_module(f"flowtuner.cli.commands.{name}")
    try:
        code: int = command.run(argv[1:])
    except ConfigError as error:
        return _fail(error, Exit.CONFIGURATION)
    except FlowtunerError as error:
        return _fail(error, Exit.FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", Exit.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        return Exit.FAILED
    return code


def train(argv: Sequence[str] | None = None) -> int:
    """The `simpletuner-train` command: `flowtuner train` under the name that SimpleTuner's users know."""
    return main(["train", *(sys.argv[1:] if argv is None else argv)])


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    listing = "\n".join(f"  {name:{width}}{line}" for name, line in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="flowtuner",
        usage="%(prog)s COMMAND [options]",
        description="Fine-tunes diffusion models as Prefect flows.",
        epilog=f"commands:\n{listing}\n\n`%(prog)s COMMAND --help` explains one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"flowtuner {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _fail(message: object, code: Exit) -> int:
    tell(f"flowtuner: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main())
