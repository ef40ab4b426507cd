"""The API as methods: environments, data sets, jobs and their events."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from flowtuner.client.connection import Connection, Refused, ServerPlace
from flowtuner.client.models import Checkpoint, Event, Job, Queue, Status, Submission, Verdict

END = "job.status"


class Client:
    """A server, asked from Python; without arguments the one that the environment names."""

    def __init__(
        self, url: str | None = None, key: str | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        place = ServerPlace.from_environment()
        place = ServerPlace((url or place.url).rstrip("/"), key or place.key, place.verifies)
        self._connection = Connection(place, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def is_ready(self) -> bool:
        """Whether a job could start now."""
        try:
            self._connection.ask("GET", "/ready", is_repeatable=False)
        except Refused:
            return False
        return True

    # Environments

    def list_environments(self) -> list[str]:
        """The names of the environments."""
        return [each["name"] for each in self._connection.ask("GET", "/api/configs/")["configs"]]

    def create_environment(self, name: str, model_family: str, **more: Any) -> dict[str, Any]:
        """Makes an environment and a dataloader to begin with; answers with its options."""
        wanted = {"name": name, "model_family": model_family} | more
        return dict(self._connection.ask("POST", "/api/configs/environments", json=wanted)["config"])

    def read_environment(self, name: str) -> dict[str, Any]:
        """The options of an environment under their plain names; credentials are hidden."""
        config = self._connection.ask("GET", f"/api/configs/{name}")["config"]
        return {key: value for key, value in config.items() if not key.startswith("--")}

    def replace_environment(self, name: str, options: Mapping[str, Any]) -> None:
        """Replaces all options of an environment."""
        self._connection.ask("PUT", f"/api/configs/{name}", json={"config": dict(options)})

    def replace_dataloader(self, name: str, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the data sets of an environment."""
        self._connection.ask("PUT", f"/api/configs/{name}/dataloader", json=[dict(each) for each in entries])

    def activate(self, name: str) -> None:
        """Makes an environment the one that forms start from."""
        self._connection.ask("POST", f"/api/configs/{name}/activate", is_repeatable=True)

    def check_environment(self, name: str) -> Verdict:
        """Everything that keeps an environment from being trained."""
        return Verdict(**self._connection.ask("POST", f"/api/configs/{name}/validate", is_repeatable=True))

    # Data sets

    def create_folder(self, name: str, parent: str = ".") -> str:
        """Makes a folder for a data set; answers with its path on the server."""
        fields = {"parent_path": parent, "folder_name": name}
        return str(self._connection.ask("POST", "/api/datasets/folders", data=fields)["path"])

    def upload(self, target: str, paths: Iterable[Path]) -> int:
        """Brings files into a folder, all or none; answers with how many."""
        with contextlib.ExitStack() as stack:
            files = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in paths]
            reply = self._connection.ask(
                "POST", "/api/datasets/upload", data={"target_path": target}, files=files, timeout=None
            )
        return int(reply["files_uploaded"])

    # Jobs

    def check(self, options: Mapping[str, Any]) -> Verdict:
        """Everything that keeps options from being trained."""
        try:
            found = self._connection.ask("POST", "/api/training/validate", json=dict(options), is_repeatable=True)
        except Refused as refusal:
            if "errors" not in refusal.body:
                raise
            found = refusal.body
        return Verdict(is_valid=found["valid"], errors=found["errors"], warnings=found["warnings"])

    def start(self, options: Mapping[str, Any]) -> Submission:
        """Queues a run with options over the active environment's; asked twice by a bad line, it is one job."""
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return Submission(
            **self._connection.ask(
                "POST", "/api/training/start", json=dict(options), headers=headers, is_repeatable=True
            )
        )

    def submit(self, name: str, *, no_wait: bool = False, any_gpu: bool = False, **more: Any) -> Submission:
        """Queues an environment."""
        wanted = {"config_name": name, "no_wait": no_wait, "any_gpu": any_gpu} | more
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        reply = self._connection.ask("POST", "/api/queue/submit", json=wanted, headers=headers, is_repeatable=True)
        return Submission(**reply)

    def list_jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, newest first."""
        return [Job(**each) for each in self._connection.ask("GET", "/api/cloud/jobs", params={"limit": limit})["jobs"]]

    def read_job(self, job_id: str) -> Job:
        """One job."""
        return Job(**self._connection.ask("GET", f"/api/cloud/jobs/{job_id}"))

    def read_queue(self) -> Queue:
        """The jobs that wait or run."""
        return Queue(**self._connection.ask("GET", "/api/queue"))

    def read_status(self, job_id: str | None = None) -> Status:
        """Where a job stands; the newest one under way if none is named."""
        return Status(**self._connection.ask("GET", "/api/training/status", params=_only(job_id=job_id)))

    def list_checkpoints(self, job_id: str | None = None) -> list[Checkpoint]:
        """The checkpoints in a job's output folder."""
        found = self._connection.ask("GET", "/api/training/checkpoints", params=_only(job_id=job_id))
        return [Checkpoint(**each) for each in found["checkpoints"]]

    def ask_for_validation(self, job_id: str | None = None) -> str:
        """Has a run draw its validation pictures after the next step; answers with the order's id."""
        return str(self._order("validation", job_id)["order_id"])

    def ask_for_checkpoint(self, job_id: str | None = None) -> str:
        """Has a run save a checkpoint after the next step; answers with the order's id."""
        return str(self._order("checkpoint", job_id)["order_id"])

    def cancel(self, job_id: str) -> str:
        """Takes a job out of the queue, or has its run save and end; answers with its state."""
        return str(self._connection.ask("POST", f"/api/cloud/jobs/{job_id}/cancel")["status"])

    def retry(self, job_id: str) -> Submission:
        """Queues a job that is over once more, with the same options; it goes on from its newest checkpoint."""
        return Submission(**self._connection.ask("POST", f"/api/cloud/jobs/{job_id}/retry"))

    def delete(self, job_id: str) -> None:
        """Forgets a job that is over, with its events; what it trained stays."""
        self._connection.ask("DELETE", f"/api/cloud/jobs/{job_id}")

    # Events

    def read_events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """The events behind a number, as far as there are any."""
        while True:
            asked = {"job_id": job_id, "since_index": after}
            page = self._connection.ask("GET", "/api/training/events", params=asked)
            yield from (Event(**each) for each in page["events"])
            after = page["next_index"]
            if not page["has_more"]:
                return

    def follow(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """All events behind a number and those to come, until the job is over; goes on after a broken line."""
        while True:
            for event in self.read_events(job_id, after):
                yield event
                after = event.number
            if self.read_job(job_id).is_over:
                yield from self.read_events(job_id, after)
                return
            with contextlib.suppress(httpx.TransportError), contextlib.closing(self._listen(job_id, after)) as events:
                for event in events:
                    yield event
                    after = event.number
                    if event.type == END:
                        break

    def _listen(self, job_id: str, after: int) -> Generator[Event]:
        asked = {"job_id": job_id, "since_index": after}
        with self._connection.stream("/api/training/events/stream", params=asked) as reply:
            for line in reply.iter_lines():
                name, _, text = line.partition(": ")
                if name == "data" and '"id"' in text:
                    yield Event(**json.loads(text))

    def _order(self, what: str, job_id: str | None) -> dict[str, Any]:
        fields = _only(job_id=job_id)
        return dict(self._connection.ask("POST", f"/api/training/{what}/run", data=fields))


def _only(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
