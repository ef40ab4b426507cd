"""The arguments that several commands share, and the options that stand among them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowtuner.options import LoadedConfig
    from flowtuner.options.load import Check


@dataclass(frozen=True)
class Source:
    """Where a run's options come from: an environment, a file, flags and values, the later winning."""

    env: str | None = None
    config_file: Path | None = None
    flags: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def load(self, checks: Sequence[Check] = ()) -> LoadedConfig:
        """Reads and checks the options; raises ConfigError with every fault."""
        from flowtuner.options import load

        # Values alone must stay alone: with them, no file that happens to lie around is picked up.
        return load(
            env=self.env,
            config_file=self.config_file,
            flags=self.flags,
            values=self.values or None,
            checks=checks,
        )

    def parameters(self, loaded: LoadedConfig) -> dict[str, Any]:
        """The same options as parameters of a flow, which reads the file itself: its placeholders may hold secrets."""
        from flowtuner.options.sources import parse_flags

        config: dict[str, Any] = {}
        for given in parse_flags(self.flags, []):
            name = given.key.lstrip("-")
            config[name] = [config[name], given.value] if name in config else given.value
        file = loaded.config_file
        return {"config": config | dict(self.values), "env": None, "config_file": str(file) if file else None}


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for one command; words it does not know must not be taken for abbreviations."""
    return argparse.ArgumentParser(prog=f"flowtuner {name}", description=description, allow_abbrev=False)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say where the options come from."""
    parser.add_argument("--env", metavar="NAME", help="use config/NAME/config.json (or .toml)")
    parser.add_argument("--config", metavar="FILE", type=Path, help="use this JSON or TOML file")
    parser.epilog = "Any option may follow as --name=value, --name value or --flag; docs/options.md lists them."


def parse_source(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, Source]:
    """Parses a command's own arguments; all others are options of the run."""
    known, flags = parser.parse_known_args(argv)
    return known, Source(known.env, known.config, tuple(flags))
