"""Tells one webhook what a run's log says: in order, at least once, and never in the run's way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowtuner import durable
from flowtuner.engine.events import EventLog
from flowtuner.telling.addresses import Rule
from flowtuner.telling.hooks import Hook
from flowtuner.telling.messages import SUPERSEDED, Message, compose, sign
from flowtuner.telling.post import Answer, post
from flowtuner.telling.reports import LogReader, Report

POLL_S = 0.5
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
GIVE_UP_S = 3600.0
LAST_WORDS_S = 10.0


@dataclass
class Courier:
    """One webhook's way through the log; what it has told is noted in a file, so that a resumed run goes on there."""

    hook: Hook
    events: EventLog
    folder: Path
    job_id: str
    project: str
    interval_s: float = 0.0
    rule: Rule = field(default_factory=Rule.from_environment)
    stop: threading.Event = field(default_factory=threading.Event)
    _told: int = 0
    _progress_at: float = float("-inf")
    _ends_at: float | None = None
    _is_complaining: bool = False

    def open(self, newest: int) -> None:
        """Finds out where to begin: behind what was told, or at the log's present end."""
        self._told = _read_number(self._place, newest)

    def run(self) -> None:
        """Tells until the run is over, and then what is left, for a few seconds more."""
        reader = LogReader(self.events.path)
        while True:
            is_over = self.stop.is_set()  # before the log is read: what was written until then is in it
            reports = reader.read(None, self._told)
            if not all(self._tell(report) for report in self._select(reports)):
                self._account(reports)
                return
            if reports:
                self._told = reports[-1].source
            if is_over:
                self._note(self._told)
                return
            self.stop.wait(POLL_S)

    def _select(self, reports: Sequence[Report]) -> Iterator[Report]:
        # Of several reports of progress the newest says all, and only so often as somebody wants to read it.
        is_time = time.monotonic() - self._progress_at >= self.interval_s
        newest = {report.type: report.source for report in reports if report.type in SUPERSEDED}
        for report in reports:
            if report.type not in SUPERSEDED or (is_time and newest[report.type] == report.source):
                yield report
        if newest and is_time:
            self._progress_at = time.monotonic()

    def _tell(self, report: Report) -> bool:
        """False if the run ended while the receiver was away; a message that is refused counts as told."""
        message = compose(self.hook, report, self.job_id, self.project)
        if message is None:
            return True
        gives_up_at, wait_s = time.monotonic() + GIVE_UP_S, FIRST_WAIT_S
        while not self._is_told(answer := self._send(message)):
            pause = _pause(answer, wait_s)
            if time.monotonic() + pause > self._latest(gives_up_at):
                return not self.stop.is_set()
            time.sleep(pause) if self.stop.is_set() else self.stop.wait(pause)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        self._note(report.source)
        return True

    def _send(self, message: Message) -> Answer:
        return post(self.hook, message.body, {**message.headers, **sign(self.hook, message)}, self.rule)

    def _is_told(self, answer: Answer) -> bool:
        if answer.fault is None:
            self._is_complaining = False
            return True
        self._complain(f"{answer.fault}{'; trying again' if answer.may_work_later else ''}")
        return not answer.may_work_later

    def _latest(self, gives_up_at: float) -> float:
        if self.stop.is_set():
            self._ends_at = self._ends_at or time.monotonic() + LAST_WORDS_S
        return min(gives_up_at, self._ends_at or gives_up_at)

    def _account(self, reports: Sequence[Report]) -> None:
        left = [each for each in reports if each.source > self._told]
        count = sum(compose(self.hook, each, self.job_id, self.project) is not None for each in left)
        self._is_complaining = False
        self._complain(f"{count} events were not told before the run ended; a run that goes on from here tells them")

    @property
    def _place(self) -> Path:
        return self.folder / f"{self.hook.fingerprint}.json"

    def _note(self, source: int) -> None:
        self._told = source
        durable.write_json(self._place, source)

    def _complain(self, fault: str) -> None:
        # Once until it works again: this too becomes an event, which this webhook would have to be told.
        if not self._is_complaining:
            self._is_complaining = True
            self.events.notify("warning", f"the webhook at {self.hook.host} was not told everything: {fault}")


def _pause(answer: Answer, wait_s: float) -> float:
    if answer.wait_s is not None:
        return min(answer.wait_s, LONGEST_WAIT_S)
    return wait_s * random.uniform(0.5, 1.0)


def _read_number(path: Path, default: int) -> int:
    try:
        return int(durable.read_json(path))
    except (OSError, ValueError, TypeError):
        return default
