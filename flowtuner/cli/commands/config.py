"""`flowtuner config`: the resolved options and where each came from, or the schema of all options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowtuner.cli.arguments import Source, add_source, make_parser, parse_source
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write, write_json

if TYPE_CHECKING:
    from flowtuner.options import LoadedConfig


def run(argv: Sequence[str]) -> int:
    """Shows options or their schema."""
    parser = make_parser("config", "Shows the resolved options (show) or the schema of all options (schema).")
    parser.add_argument("what", choices=("show", "schema"))
    add_source(parser)
    parser.add_argument("--origin", action="store_true", help="say where each value came from")
    parser.add_argument("--all", action="store_true", help="show the options that have their default, too")
    parser.add_argument("--json", action="store_true", help="write JSON")
    known, source = parse_source(parser, argv)
    if known.what == "schema":
        return _write_schema()
    return _show(source, known.origin, known.all, known.json)


def _write_schema() -> int:
    from flowtuner.options import training_schema

    write_json(training_schema())
    return Exit.OK


def _show(source: Source, with_origin: bool, with_defaults: bool, as_json: bool) -> int:
    from flowtuner.options import hide_secrets

    loaded = source.load()
    values = hide_secrets(loaded.config.model_dump(mode="json"))
    names = [name for name in values if with_defaults or _is_set(loaded, name)]
    if as_json:
        write_json({name: _describe(loaded, name, values[name], with_origin) for name in names})
        return Exit.OK
    width = max(map(len, names), default=0)
    for name in names:
        origin = f"    # {loaded.origin(name)}" if with_origin else ""
        write(f"{name:{width}} = {values[name]!r}{origin}")
    for warning in loaded.warnings:
        tell(f"warning: {warning}")
    if len(names) < len(values):
        tell(f"{len(values) - len(names)} more options have their default; --all shows them.")
    return Exit.OK


def _describe(loaded: LoadedConfig, name: str, value: Any, with_origin: bool) -> Any:
    if not with_origin:
        return value
    return {"value": value, "origin": str(loaded.origin(name))}


def _is_set(loaded: LoadedConfig, name: str) -> bool:
    return loaded.origin(name).kind != "default"
