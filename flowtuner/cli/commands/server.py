"""`flowtuner server`: the HTTP API, with a Prefect server, a worker and all deployments beside it, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from flowtuner.cli.arguments import make_parser
from flowtuner.cli.certificate import write_certificate
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write
from flowtuner.cli.services import LocalServices
from flowtuner.errors import FlowtunerError
from flowtuner.jobs.server import ServerAddress

if TYPE_CHECKING:
    from flowtuner.api.settings import ServerSettings

DRAIN_S = 5


def run(argv: Sequence[str]) -> int:
    """Serves until it is told to stop."""
    known = _parse(argv)
    if known.working_dir:
        os.chdir(known.working_dir)
    from flowtuner.api.settings import ServerSettings

    certificate = _certificate(known, ServerSettings.from_environment().home)
    settings = ServerSettings.from_environment(host=known.host, port=known.port, is_tls=certificate is not None)
    if known.env:
        _require_environment(known.env, settings.config_dir)
    return _serve(known, settings, certificate)


def _serve(known: argparse.Namespace, settings: ServerSettings, certificate: tuple[Path, Path] | None) -> int:
    from flowtuner.api.app import choose_host

    host, needs_token = choose_host(settings, is_given=bool(known.host or os.environ.get("SIMPLETUNER_HOST")))
    write(f"API:          {'https' if certificate else 'http'}://{host}:{settings.port}   (a page at /, docs at /docs)")
    if needs_token:
        write(f"Set-up token: {settings.read_setup_token()}   (as X-Setup-Token, for the first administrator)")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    services = LocalServices(settings.working_dir, _tell_ready)
    listening = {
        "host": host,
        "port": settings.port,
        "log_level": "warning",
        "timeout_graceful_shutdown": DRAIN_S,
        "ws": "websockets-sansio",
        "ssl_keyfile": str(certificate[0]) if certificate else None,
        "ssl_certfile": str(certificate[1]) if certificate else None,
    }
    is_served = False
    try:
        with contextlib.suppress(KeyboardInterrupt), _stopped_by_sigterm():
            is_served = (_run_reloading if known.reload else _run)(known, settings, services, listening)
    finally:
        with _undisturbed():
            services.close()
    return Exit.OK if is_served else Exit.FAILED


def _run(
    known: argparse.Namespace, settings: ServerSettings, services: LocalServices, listening: dict[str, Any]
) -> bool:
    import uvicorn

    from flowtuner.api.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(settings, services, known.env), **listening))
    with contextlib.suppress(KeyboardInterrupt):
        server.run()  # which hands on the signal that ended it
    return bool(server.started)


def _run_reloading(
    known: argparse.Namespace, settings: ServerSettings, services: LocalServices, listening: dict[str, Any]
) -> bool:
    import uvicorn
    from uvicorn.supervisors import ChangeReload

    from flowtuner.api import reloading

    ready = threading.Event()
    services.start(_Told(ready.set))
    while not ready.wait(0.2):
        pass
    if settings.is_tls:
        os.environ[reloading.IS_TLS] = "1"
    watched = [str(Path(reloading.__file__).parents[2] / name) for name in ("flowtuner", "flows", "tasks", "blocks")]
    config = uvicorn.Config(
        "flowtuner.api.reloading:make_app", factory=True, reload=True, reload_dirs=watched, **listening
    )
    ChangeReload(config, target=uvicorn.Server(config).run, sockets=[config.bind_socket()]).run()
    return True


class _Told:
    """Stands for the jobs, which begin in the process that is started again and again."""

    def __init__(self, start: Callable[[], None]) -> None:
        self.start = start


def _tell_ready(address: ServerAddress, deployments: Sequence[str]) -> None:
    lines = [f"Prefect UI:   {address.ui_url}"]
    if address.auth:
        lines.append(f"Password:     {address.auth}")
    lines.append(f"Prefect API:  PREFECT_API_URL={address.api_url}")
    lines.append(f"Deployments:  {', '.join(deployments)}")
    lines.append("Ready. Ctrl-C stops everything; runs under way save a checkpoint.")
    with contextlib.suppress(BrokenPipeError):  # whoever read the beginning may have left
        write("\n".join(lines))


def _require_environment(name: str, config_dir: Path) -> None:
    from flowtuner.jobs.environments import EnvironmentStore

    EnvironmentStore(config_dir).read(name)


def _certificate(known: argparse.Namespace, home: Path) -> tuple[Path, Path] | None:
    if bool(known.ssl_key) != bool(known.ssl_cert):
        raise FlowtunerError("--ssl-key and --ssl-cert belong together: give both, or --ssl alone for one made here")
    if known.ssl_key:
        return known.ssl_key, known.ssl_cert
    return write_certificate(home / "tls") if known.ssl else None


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    # A second Ctrl-C hurries nobody: the runs are saving.
    try:
        yield
    except KeyboardInterrupt:
        tell("stopping; the runs under way save a checkpoint first")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("server", "Serves the HTTP API, with Prefect, a worker and all deployments beside it.")
    parser.add_argument(
        "-H", "--host", help="address to listen on (default: 127.0.0.1; all once there is an administrator)"
    )
    parser.add_argument("-p", "--port", type=int, help="port to listen on (default: SIMPLETUNER_PORT, or 8001)")
    parser.add_argument("-e", "--env", metavar="NAME", help="train this environment as soon as everything is ready")
    parser.add_argument(
        "--reload", action="store_true", help="start the API again when the code changes: to develop it"
    )
    parser.add_argument("--mode", choices=["unified"], default="unified", help="all in one: the only mode")
    parser.add_argument("--ssl", action="store_true", help="serve https; a certificate is made if none is given")
    parser.add_argument("--ssl-key", metavar="FILE", type=Path, help="private key, PEM")
    parser.add_argument("--ssl-cert", metavar="FILE", type=Path, help="certificate, PEM")
    parser.add_argument("--ssl-no-verify", action="store_true", help="accepted: a client's matter")
    parser.add_argument("--working-dir", metavar="FOLDER", type=Path, help="where config/ is (default: here)")
    return parser.parse_args(argv)
