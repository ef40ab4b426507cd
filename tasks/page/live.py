"""The thread that follows a run's events and keeps its page in Prefect up to date, every few seconds at most."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flowtuner.engine.events import EventLog, follow_events, last_seq
from flowtuner.options import LoadedConfig
from tasks.page.content import Artifact, PageContent

PERIOD_S = 5.0
POLL_S = 0.5
JOIN_S = 20.0


@contextlib.contextmanager
def shown_live(events: EventLog, loaded: LoadedConfig | None = None) -> Iterator[None]:
    """Keeps the page of the present flow run up to date with what is appended to the log from now on."""
    run_id = flow_run.get_id()
    if run_id is None:
        yield
        return
    page = _Page(UUID(run_id), get_run_logger())
    content = PageContent(loaded)
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(content, events, last_seq(events.path), stop), daemon=True)
    reader.start()
    # A copy of the context carries the settings, with them the API's address, into the thread.
    context = contextvars.copy_context()
    tags = [f"model:{loaded.config.model_family}"] if loaded else []
    painter = threading.Thread(target=context.run, args=(_paint, page, content, tags, reader, stop), daemon=True)
    painter.start()
    try:
        yield
    finally:
        stop.set()
        painter.join(JOIN_S)


def _read(content: PageContent, events: EventLog, after: int, stop: threading.Event) -> None:
    for event in follow_events(events.path, after, stop, POLL_S):
        content.take_note(event.type, event.data)


def _paint(page: _Page, content: PageContent, tags: list[str], reader: threading.Thread, stop: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        page.tag(client, tags)
        page.show(client, content.take())
        while not stop.wait(PERIOD_S):
            page.show(client, content.take())
        reader.join()
        page.show(client, content.take())


class _Page:
    """The artifacts of one flow run: created once, updated afterwards."""

    def __init__(self, run_id: UUID, logger: logging.LoggerAdapter[logging.Logger] | logging.Logger) -> None:
        self._run_id = run_id
        self._logger = logger
        self._ids: dict[str, UUID] = {}
        self._is_complaining = False

    def tag(self, client: SyncPrefectClient, tags: list[str]) -> None:
        """Adds tags to the flow run."""
        if tags:
            self._try(lambda: self._add_tags(client, tags))

    def show(self, client: SyncPrefectClient, artifacts: list[Artifact]) -> None:
        """Writes artifacts; a server that does not answer costs the page, not the run."""
        for artifact in artifacts:
            self._try(lambda artifact=artifact: self._put(client, artifact))  # type: ignore[misc]

    def _add_tags(self, client: SyncPrefectClient, tags: list[str]) -> None:
        present = client.read_flow_run(self._run_id).tags
        client.update_flow_run(self._run_id, tags=sorted({*present, *tags}))

    def _put(self, client: SyncPrefectClient, artifact: Artifact) -> None:
        if artifact.key in self._ids:
            update = ArtifactUpdate(data=artifact.data, description=artifact.description)
            client.update_artifact(self._ids[artifact.key], update)
            return
        created = client.create_artifact(
            ArtifactCreate(
                key=artifact.key,
                type=artifact.type,
                data=artifact.data,
                description=artifact.description,
                flow_run_id=self._run_id,
            )
        )
        self._ids[artifact.key] = created.id

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (httpx.HTTPError, PrefectException) as error:
            if not self._is_complaining:
                self._logger.warning("the run page is not up to date: %s", error)
            self._is_complaining = True
