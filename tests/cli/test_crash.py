"""An exception nobody expected: one line for the person, the rest in a file."""

import re
import subprocess
import sys
from pathlib import Path

from flowtuner.cli.crash import report_crash


def test_a_crash_is_one_line_and_a_file(tmp_path):
    code = "import sys; from flowtuner.cli.crash import report_crash; sys.excepthook = report_crash; 1 / 0"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"FLOWTUNER_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    file = re.search(r"unexpected ZeroDivisionError: division by zero. The full traceback is in (\S+)", done.stderr)[1]
    assert Path(file).parent == tmp_path / "logs"
    assert "Traceback (most recent call last)" in Path(file).read_text()


def test_a_home_that_cannot_be_written_is_no_second_crash(tmp_path, monkeypatch, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("FLOWTUNER_HOME", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = ValueError("two\nlines")
    report_crash(ValueError, error, error.__traceback__)
    assert f"unexpected ValueError: two lines. The full traceback is in {tmp_path}/crash-" in capsys.readouterr().err
