"""The loop of a server: starts what waits, follows what runs, resumes what crashed, and notes what is over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flowtuner.errors import Terminal
from flowtuner.jobs import store
from flowtuner.jobs.dispatch import PrefectAway, RunState, cancel_run, mark_crashed, read_states, start_run
from flowtuner.jobs.intake import keep_pictures, take
from flowtuner.jobs.tokens import RunTokens
from flowtuner.records.database import Database
from flowtuner.records.tables import Job
from flowtuner.telling.reports import LogReader

LOG = logging.getLogger(__name__)
TICK_S = 1.0
ATTEMPTS = 3
CANCEL = "cancel"
WAITING = ("SCHEDULED", "PENDING")


@dataclass
class JobsLoop:
    """One thread that brings the jobs' rows and the world together; every tick may fail and the next goes on."""

    database: Database
    home: Path
    tell: Callable[[str], None] = lambda job_id: None
    """Called with the id of a job that has new events."""

    public_url: str | None = None
    """Where runs on other machines reach this server, if they do."""

    tick_s: float = TICK_S
    _readers: dict[str, LogReader] = field(default_factory=dict)
    _vanished: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins; once is enough."""
        if self._thread:
            return
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends after the tick under way; runs go on."""
        self._stop.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=30)

    def hurry(self) -> None:
        """Has the next tick come at once."""
        self._wake.set()

    def tick(self) -> None:
        """One look at everything."""
        with self.database.reading() as session:
            active = store.list_jobs(session, store.ACTIVE)
        states = read_states(job.flow_run_id for job in active if job.flow_run_id)
        for job in active:
            self._follow(job)
            self._settle(job, states.get(job.flow_run_id or ""))
        self._start_next()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.tick()
            except PrefectAway as error:
                LOG.warning("%s; trying again", error)
                self._follow_all()
            except Exception:
                LOG.exception("the jobs could not be looked after; trying again")
            self._wake.wait(self.tick_s)
            self._wake.clear()

    def _follow_all(self) -> None:
        # Without Prefect the runs themselves still say how far they are.
        with self.database.reading() as session:
            active = store.list_jobs(session, store.ACTIVE)
        for job in active:
            self._follow(job)

    def _follow(self, job: Job) -> None:
        if not job.output_dir or not job.flow_run_id:
            return
        reader = self._readers.setdefault(job.id, LogReader(Path(job.output_dir) / "logs" / "events.jsonl"))
        reports = reader.read(job.flow_run_id, job.last_source)
        if not reports:
            return
        pictures = {each.source: keep_pictures(self.home, job.id, each) for each in reports if each.pictures}
        take(self.database, job.id, job.flow_run_id, reports, pictures)
        job.last_source = reports[-1].source
        self.tell(job.id)

    def _settle(self, job: Job, state: RunState | None) -> None:
        if job.flow_run_id is None:
            if job.status == store.STARTING:
                self._dispatch(job.id)  # the server ended between deciding and starting
            return
        if state is None:
            self._move(job.id, store.ERROR, "Prefect no longer knows the run of this job")
            return
        if state.type == "RUNNING" and job.status == store.STARTING:
            self._move(job.id, store.RUNNING)
        if self._is_under_way(job, state):
            return
        self._follow(job)  # what it wrote last
        has_crashed = state.type == "CRASHED" or state.has_vanished
        if has_crashed and job.attempt < ATTEMPTS and job.detail != CANCEL:
            self._resume(job, state)
            return
        is_cancelled = state.type == "CANCELLED" or job.detail == CANCEL
        ends = {"COMPLETED": store.COMPLETED}
        status = store.CANCELLED if is_cancelled else ends.get(state.type, store.ERROR)
        self._move(job.id, status, state.message or None)
        self._readers.pop(job.id, None)

    def _is_under_way(self, job: Job, state: RunState) -> bool:
        if state.type not in ("RUNNING", "CANCELLING", *WAITING):
            return False
        assert job.flow_run_id is not None
        if not state.has_vanished:
            self._vanished.discard(job.flow_run_id)
            return True
        if job.flow_run_id not in self._vanished:  # it may just have ended, and its last state be on its way
            self._vanished.add(job.flow_run_id)
            return True
        self._vanished.discard(job.flow_run_id)
        mark_crashed(job.flow_run_id)
        return False

    def _resume(self, job: Job, state: RunState) -> None:
        with self.database.writing() as session:
            present = session.get_one(Job, job.id)
            message = f"the run crashed ({state.message.strip() or state.name}); it goes on from its newest checkpoint"
            store.add_event(session, present, "notification", message, severity="warning")
            present.parameters = store.resuming(present.parameters)
            present.flow_run_id = None
            store.move(session, present, store.STARTING, "resuming")
        self.tell(job.id)
        self._dispatch(job.id)

    def _start_next(self) -> None:
        while True:
            with self.database.writing() as session:
                limit = store.read_limits(session)["local_job_max_concurrent"]
                busy = len(store.list_jobs(session, store.ACTIVE))
                waiting = store.list_queue(session)
                if not waiting or (limit is not None and busy >= limit):
                    return
                job = waiting[0]
                if not store.move(session, job, store.STARTING):
                    continue
            self.tell(job.id)
            self._dispatch(job.id)

    def _dispatch(self, job_id: str) -> None:
        with self.database.writing() as session:
            job = session.get_one(Job, job_id)
            if job.status not in store.ACTIVE or job.flow_run_id:
                return
            if job.detail == CANCEL:
                store.move(session, job, store.CANCELLED, "cancelled before it began")
                return
            attempt, parameters = job.attempt + 1, dict(job.parameters)
        environment = RunTokens(self.database, self.public_url).environment_of(job_id)
        try:
            run_id = start_run(parameters, job_id, attempt, environment)
        except Terminal as error:
            self._move(job_id, store.ERROR, str(error))
            return
        with self.database.writing() as session:
            job = session.get_one(Job, job_id)
            job.flow_run_id, job.attempt, job.last_source = run_id, attempt, 0
            is_unwanted = job.detail == CANCEL
        if is_unwanted:  # somebody cancelled while Prefect was asked
            cancel_run(run_id)

    def _move(self, job_id: str, status: str, detail: str | None = None) -> None:
        with self.database.writing() as session:
            job = session.get_one(Job, job_id)
            if status == store.RUNNING and job.detail == CANCEL:
                detail = CANCEL  # a wish is not forgotten because the run begins
            store.move(session, job, status, detail)
        self.tell(job_id)


def ask_to_cancel(database: Database, job_id: str) -> str:
    """Takes a job out of the queue, or has its run saved and stopped; says in which state the job is now."""
    with database.writing() as session:
        job = session.get_one(Job, job_id)
        if job.status == store.QUEUED:
            store.move(session, job, store.CANCELLED, "cancelled while it waited")
            return job.status
        if job.status in store.OVER:
            return job.status
        job.detail = CANCEL
        store.add_event(session, job, "notification", "stop requested: a checkpoint is saved first")
        run_id, status = job.flow_run_id, job.status
    if run_id:
        cancel_run(run_id)
    return status
