"""Pictures by web address: fetched once, bounded, and set aside where they cannot be had."""

import http.server
import threading
from contextlib import contextmanager

import pytest

from flowtuner.engine.data.sources import csv as room
from flowtuner.errors import DataError


@contextmanager
def serving(folder):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/away"):
                self.send_response(302)
                self.send_header("Location", "ftp://127.0.0.1/x.png")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def table(tmp_path, make_entry):
    def write(text, **values):
        path = tmp_path / "urls.csv"
        path.write_text(text)
        return make_entry(type="csv", csv_file=path, caption_strategy="csv", instance_data_dir=None, **values)

    return write


def test_pictures_are_fetched_once_and_captioned(tmp_path, draw, table, scan):
    draw("one.png", seed=1)
    draw("two.png", seed=2)
    with serving(tmp_path / "pictures") as (url, asked):
        text = (
            f"url,caption\n{url}/one.png?key=secret,a dog\n{url}/two.png,\n{url}/none.png,x\n"
            f"{url}/away.png,x\nfile:///etc/passwd,x\n"
        )
        found = scan(table(text, csv_cache_dir=tmp_path / "kept"))
        again = scan(table(text, csv_cache_dir=tmp_path / "kept"))
    assert [sample.captions for sample in found.samples] == [("a dog",)]
    assert found == again and asked.count("/one.png?key=secret") == 1
    reasons = {fault.path.rpartition("/")[2]: fault.reason for fault in found.quarantined}
    assert "404" in reasons["none.png"] and "no web address" in reasons["passwd"]
    assert "away.png" in reasons and any("no caption" in reason for reason in reasons.values())
    assert "secret" not in repr(found.quarantined)


def test_what_is_too_large_is_set_aside(tmp_path, draw, table, scan, monkeypatch):
    draw("small.png", size=(8, 8))
    draw("large.png", size=(200, 200))
    monkeypatch.setattr(room, "LARGEST_BYTES", 20_000)
    monkeypatch.setattr(room, "BLOCK_BYTES", 1000)
    with serving(tmp_path / "pictures") as (url, _):
        found = scan(
            table(
                f"link,text\n{url}/small.png,s\n{url}/large.png,l\n", csv_url_column="link", csv_caption_column="text"
            )
        )
    assert [sample.captions for sample in found.samples] == [("s",)]
    assert "larger than" in found.quarantined[0].reason


@pytest.mark.parametrize(
    ("text", "words"),
    [("caption\nx\n", "has no column url"), ("url\n", "no rows"), ("url\nfile:///x\n", "no web address")],
)
def test_a_table_that_cannot_be_used_is_found_by_a_look(table, make_config, tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        room.open_source(table(text), make_config(), tmp_path).check()
