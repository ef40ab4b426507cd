"""A configured Prefect server that does not answer is told at once, without a traceback."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flowtuner.cli.main import main
from flowtuner.cli.reach import Unreachable, require_answer


class Locked(BaseHTTPRequestHandler):
    """Answers, but wants a password."""

    def do_GET(self):
        self.send_response(401)
        self.end_headers()

    def log_message(self, *words):
        """Says nothing."""


@pytest.fixture
def locked_server():
    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


def test_any_answer_is_an_answer(locked_server):
    require_answer(locked_server)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "nonsense"])
def test_no_answer_says_what_to_do(url):
    with pytest.raises(Unreachable, match=f"{url} does not answer.*PREFECT_API_URL"):
        require_answer(url)


@pytest.mark.parametrize("command", ["train", "cache"])
def test_runs_do_not_wait_for_a_server_that_is_not_there(command, config_file, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert main([command, "--config", str(config_file)]) == 1
    err = capsys.readouterr().err
    assert "flowtuner: the Prefect server at http://127.0.0.1:9/api does not answer" in err
    assert not (tmp_path / "output" / "checkpoint-2").exists()


def test_neither_does_deploying(monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert main(["deploy"]) == 1
    assert "does not answer" in capsys.readouterr().err
