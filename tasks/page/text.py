"""The tables of the run page, as Markdown."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowtuner.options import LoadedConfig, Origin

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


def describe_validation(
    step: int, sheet: bytes | None, prompts: Sequence[str], error: str | None = None, films: Sequence[bytes] = ()
) -> str:
    """The contact sheet and its prompts, the films, and what went wrong."""
    moving = "".join(f"![film {number}]({data_uri(film, 'gif')})\n\n" for number, film in enumerate(films, 1))
    picture = f"![validation at step {step}]({data_uri(sheet, 'jpeg')})\n\n" if sheet else ""
    warning = f"**Not complete:** {error}\n\n" if error else ""
    return warning + moving + picture + "\n".join(f"- {prompt or '(empty prompt)'}" for prompt in prompts)


def describe_published(rows: Iterable[Mapping[str, Any]]) -> str:
    """What stands where, whether that was proved, and how far each destination is behind."""
    rows = list(rows)
    ordered = sorted(rows, key=lambda row: (row.get("step") or 0, row["what"], row["destination"]))
    lines = ((row["what"], row["destination"], _state(row), _size(row)) for row in ordered)
    # Outside the table, whose narrow columns would let a long path run into what stands beside it.
    places = (f"- {row['what']}, {row['destination']}: {row.get('uri') or row.get('message', '')}" for row in ordered)
    known = [line for line in places if not line.endswith(": ")]
    newest = {row["destination"]: row for row in rows if "publish_lag_steps" in row}
    behind = (
        (name, row["last_verified_step"], row["publish_lag_steps"], f"{row['publish_lag_seconds']:.0f}")
        for name, row in newest.items()
    )
    head = ("destination", "last verified step", "behind by steps", "by seconds")
    return "\n\n".join(
        (
            table(("what", "destination", "state", "size"), lines),
            *([table(head, behind)] if newest else []),
            "\n".join(known),
        )
    )


def describe_warnings(severities: Mapping[str, str]) -> str:
    """What a person should read, the newest last."""
    return "\n".join(f"- **{severity}:** {message}" for message, severity in list(severities.items())[-ROWS:])


def describe_scripts(rows: Iterable[Mapping[str, Any]]) -> str:
    """Which of the user's scripts were called, how they ended and what they said."""
    listed = list(rows)
    lines = ((row["script"], row["what"], row["destination"], _ending(row), row.get("seconds", "")) for row in listed)
    said = [
        f"**{row['script']}, {row['what']}** {row['destination']}\n\n" + _indented(row["output"])
        for row in listed[-ROWS:]
        if row.get("output")
    ]
    return "\n\n".join((table(("script", "for", "destination", "end", "seconds"), lines), *said))


def describe_configuration(loaded: LoadedConfig) -> str:
    """The options that somebody set, with their origin, then the others, then the datasets; without secrets."""
    values = loaded.redacted()
    config: dict[str, Any] = values["config"]
    origins = {name: origin for name, origin in sorted(loaded.origins.items()) if name in config}
    chosen = (
        (name, json.dumps(config[name]), _source(origin))
        for name, origin in origins.items()
        if origin.kind != "default"
    )
    others = ((name, json.dumps(config[name])) for name, origin in origins.items() if origin.kind == "default")
    datasets = ((entry["id"], _set_fields(entry)) for entry in values["datasets"])
    return "\n\n".join(
        (
            "## Set",
            table(("option", "value", "from"), chosen),
            "## Datasets",
            table(("id", "entry"), datasets),
            "## Defaults",
            table(("option", "value"), others),
        )
    )


def table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def data_uri(data: bytes, kind: str) -> str:
    """A picture as text that needs no server."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _state(row: Mapping[str, Any]) -> str:
    if row["state"] == "uploading" and row.get("total_bytes"):
        return f"uploading, {100 * row['done_bytes'] / row['total_bytes']:.0f} %"
    if row["state"] == "verified" and not row.get("verified"):
        return "not verified"
    state = "**failed**" if row["state"] == "failed" else str(row["state"])
    return f"{state}, {row['retries']} times tried again" if row.get("retries") else state


def _ending(row: Mapping[str, Any]) -> str:
    if row["state"] == "started":
        return "runs"
    return f"**exit code {row['exit_code']}**" if row["state"] == "failed" else "done"


def _indented(output: str) -> str:
    return "\n".join(f"    {line}" for line in output.splitlines()[-ROWS:])


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['files']} files, {row['bytes'] / 1e6:,.1f} MB" if row.get("files") else ""


def _source(origin: Origin) -> str:
    return "parameters" if origin.kind == "values" else str(origin)


def _set_fields(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {json.dumps(value)}" for key, value in entry.items() if key != "id" and value is not None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
