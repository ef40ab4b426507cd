"""The server as the HTTP benchmark asks it, with one run under way; and a FastAPI route that answers a constant."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from flowtuner.api.app import create_app
from flowtuner.api.auth.caller import digest
from flowtuner.api.settings import ServerSettings
from flowtuner.jobs import store
from flowtuner.records.database import Database
from flowtuner.records.tables import ApiKey, Job, User

KEY = "st_of-the-benchmark"
JOB = "0badcafe"
LOGGED, TOLD, PACE_S = 400, 200, 0.05
GO = "go"


def main(home: Path, kind: str, port: int) -> None:
    """Serves until it is ended."""
    app = _constant() if kind == "constant" else _served(home)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", ws="websockets-sansio")


def _constant() -> FastAPI:
    app = FastAPI()

    @app.get("/constant")
    async def answer() -> dict[str, str]:
        return {"status": "running"}

    return app


def _served(home: Path) -> FastAPI:
    settings = ServerSettings.from_environment({"FLOWTUNER_HOME": str(home)}, datasets_dir=home / "datasets")
    _fill(Database(settings.database_url))
    app = create_app(settings)
    threading.Thread(target=_tell, args=(app, home / GO), daemon=True).start()
    return app


def _fill(database: Database) -> None:
    database.migrate()
    with database.writing() as session:
        user = User(email="a@example.com", username="admin", username_key="admin", is_admin=True)
        session.add(user)
        session.flush()
        session.add(ApiKey(user_id=user.id, name="bench", prefix=KEY[:11], hash=digest(KEY)))
        config = {f"option_{number}": number for number in range(280)}
        session.add(Job(id=JOB, user_id=user.id, status=store.RUNNING, resolved={"config": config}))
    _add_events(database, LOGGED)
    database.close()


def _tell(app: FastAPI, go: Path) -> None:
    while not go.exists():
        time.sleep(0.1)
    for _ in range(TOLD):
        _add_events(app.state.database, 1)
        app.state.board.tell(JOB)
        time.sleep(PACE_S)


def _add_events(database: Database, count: int) -> None:
    with database.writing() as session:
        job = session.get_one(Job, JOB)
        for _ in range(count):
            data = {"step": 1, "loss": 0.123456, "learning_rate": 1e-4, "grad_norm": 0.5}
            store.add_event(session, job, "training.metric", "step 1, loss 0.1235", data=data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
