"""Runs a flow in this process: a Prefect server if there is none, the display, the signals, and the exit code."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtuner.cli.display import open_display
from flowtuner.cli.exits import Exit, code_for
from flowtuner.cli.output import tell, write
from flowtuner.cli.reach import require_answer
from flowtuner.cli.stops import Preempted, Stops
from flowtuner.cli.summary import Summary
from flowtuner.cli.watch import Watch
from flowtuner.errors import ConfigError, FlowtunerError
from flowtuner.jobs.server import ServerAddress, prefect_server

FLUSH_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class FlowCall:
    """A flow by its entrypoint, what it is given, and the folder its events are written in.

    `conceal` takes credentials out of the parameters once Prefect is there to keep them.
    """

    entrypoint: str
    parameters: dict[str, Any]
    output_dir: Path
    conceal: Callable[[Mapping[str, Any]], dict[str, Any]] = dict


@dataclass
class _Ending:
    code: Exit = Exit.FAILED
    message: str = ""
    result: Any = None
    ui_url: str = ""


def run_flow(call: FlowCall, as_json: bool = False) -> int:
    """Runs a flow from start to end and says what came of it."""
    started = time.monotonic()
    summary = Summary(call.output_dir)
    ending = _Ending()
    with Stops() as stops:
        try:
            _run(call, summary, ending, as_json)
        except (KeyboardInterrupt, Preempted):
            pass
        except ConfigError as error:
            ending.code, ending.message = code_for(fault.option for fault in error.faults), str(error)
        except FlowtunerError as error:
            ending.code, ending.message = Exit.FAILED, str(error)
    if stops.is_preempted or stops.is_interrupted:
        # Prefect turns the signal into an exception of its own on the way; what was asked for is what counts.
        return _report_stop(summary, is_preempted=stops.is_preempted)
    if ending.code == Exit.INTERRUPTED and summary.status == "preempted":
        return _report_stop(summary, is_preempted=True)  # its time was over
    return _report_end(summary, ending, time.monotonic() - started, as_json)


@contextlib.contextmanager
def quiet_prefect() -> Iterator[ServerAddress]:
    """Prefect within reach, the configured server or one of our own, and nothing of it on the terminal."""
    with _quiet(), _server() as address:
        yield address


def _run(call: FlowCall, summary: Summary, ending: _Ending, as_json: bool) -> None:
    tell("starting: Prefect first, then the run ...")
    with quiet_prefect() as address:
        ending.ui_url = address.ui_url
        tell(f"Prefect UI: {address.ui_url}")
        with Watch(call.output_dir / "logs" / "events.jsonl", open_display(as_json), summary):
            try:
                _call(call, ending)
            finally:
                _flush_prefect()


def _call(call: FlowCall, ending: _Ending) -> None:
    import httpx
    from prefect.exceptions import CancelledRun, PrefectException

    try:
        ending.result = _load(call.entrypoint)(**call.conceal(call.parameters))
    except CancelledRun:  # somebody cancelled it in Prefect's UI
        ending.code, ending.message = Exit.INTERRUPTED, "cancelled"
    except PrefectException as error:
        ending.message = f"{type(error).__name__}: {error}"
    except httpx.HTTPError as error:
        ending.message = f"the Prefect server stopped answering: {error or type(error).__name__}"
    else:
        ending.code = Exit.OK


def _load(entrypoint: str) -> Callable[..., Any]:
    module, _, name = entrypoint.partition(":")
    flow: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return flow


@contextlib.contextmanager
def _server() -> Iterator[ServerAddress]:
    with prefect_server() as address:
        if not address.is_ours:
            require_answer(address.api_url)
        if "prefect" in sys.modules:  # the check of a destination imported it before the server's address was known
            from prefect.context import refresh_global_settings_context

            refresh_global_settings_context()
        yield address


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Its log of the run stands in its UI; here the display speaks, and errors are told once, without traceback.
    name = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
    is_chosen = name in os.environ
    os.environ.setdefault(name, "CRITICAL")
    try:
        yield
    finally:
        if not is_chosen:
            del os.environ[name]


def _flush_prefect() -> None:
    # What is still on its way must arrive before a server of ours ends.
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=FLUSH_TIMEOUT_S)
    EventsWorker.drain_all(timeout=FLUSH_TIMEOUT_S)


def _report_stop(summary: Summary, is_preempted: bool) -> int:
    tell(summary.describe_stop("preempted" if is_preempted else "interrupted"))
    return Exit.PREEMPTED if is_preempted else Exit.INTERRUPTED


def _report_end(summary: Summary, ending: _Ending, seconds: float, as_json: bool) -> int:
    if ending.code == Exit.INTERRUPTED:
        tell(summary.describe_stop(ending.message))
        return ending.code
    if ending.code != Exit.OK:
        tell(f"flowtuner: {ending.message}")
        if newest := summary.checkpoint:
            tell(f"The newest checkpoint is {newest}; once the cause is gone the same command goes on from there.")
        logs = summary.output_dir / "logs"
        if ending.code == Exit.FAILED and logs.is_dir():
            tell(f"Logs: {logs}")
        return ending.code
    say = tell if as_json else write
    for line in summary.describe_results(seconds):
        say(line)
    say(f"Prefect UI:  {ending.ui_url} while a server runs; `flowtuner server` opens it again")
    return ending.code
