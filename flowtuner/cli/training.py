"""One run from the command line: checked first, within seconds, then trained as a flow in this process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowtuner.cli.arguments import Source
from flowtuner.cli.findings import code_of, has_errors, load_and_inspect, tell_findings
from flowtuner.cli.flow import FlowCall, run_flow
from flowtuner.cli.output import tell
from flowtuner.publishing.door import conceal_run

TRAIN = "flows.train:train"
CACHE = "flows.cache:cache"


def run_training(
    source: Source | None = None, *, values: Mapping[str, Any] | None = None, as_json: bool = False
) -> int:
    """Trains what the options describe; nothing is started if anything is wrong with them."""
    return run_checked(TRAIN, source or Source(values=dict(values or {})), as_json)


def run_checked(entrypoint: str, source: Source, as_json: bool, more: Mapping[str, Any] = MappingProxyType({})) -> int:
    """Runs a flow that takes options and perhaps `more`, after all that can be known was found right."""
    loaded, findings = load_and_inspect(source, will_publish=entrypoint == TRAIN)
    tell_findings(findings)
    if loaded is None or has_errors(findings):
        tell("Nothing was started.")
        return code_of(findings)
    config = loaded.config
    conceal = partial(conceal_run, config=config)
    parameters = {**source.parameters(loaded), **more}
    return run_flow(FlowCall(entrypoint, parameters, Path(config.output_dir), conceal), as_json)
