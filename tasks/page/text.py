"""The tables of the run page, as Markdown."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowtuner.options import LoadedConfig

ROWS = 25


def describe_metrics(rows: Sequence[Mapping[str, Any]], curve: bytes | None) -> str:
    """The loss curve and the newest metrics."""
    picture = f"![loss]({data_uri(curve, 'png')})\n\n" if curve else ""
    newest = rows[-ROWS:][::-1]
    lines = (
        (row["step"], _number(row["loss"]), _number(row["learning_rate"]), _number(row.get("grad_norm")))
        for row in newest
    )
    return picture + table(("step", "loss", "learning rate", "gradient norm"), lines)


def describe_validation(step: int, sheet: bytes, prompts: Sequence[str]) -> str:
    """The contact sheet and its prompts."""
    picture = f"![validation at step {step}]({data_uri(sheet, 'jpeg')})\n\n"
    return f"**Step {step}**\n\n{picture}" + "\n".join(f"- {prompt or '(empty prompt)'}" for prompt in prompts)


def describe_published(rows: Iterable[Mapping[str, Any]]) -> str:
    """What stands where, and whether that was proved."""
    lines = (
        (
            row["what"],
            row["destination"],
            row["state"],
            "yes" if row.get("verified") else "no",
            row.get("files", ""),
            row.get("bytes", ""),
            row.get("uri") or row.get("message", ""),
        )
        for row in rows
    )
    return table(("what", "destination", "state", "verified", "files", "bytes", "where, or why not"), lines)


def describe_configuration(loaded: LoadedConfig) -> str:
    """The options that somebody set, with their origin, without secrets."""
    values = loaded.redacted()["config"]
    lines = (
        (name, json.dumps(values[name]), origin) for name, origin in sorted(loaded.origins.items()) if name in values
    )
    return table(("option", "value", "from"), lines)


def table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def data_uri(data: bytes, kind: str) -> str:
    """A picture as text that needs no server."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
