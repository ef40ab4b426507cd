"""What signals do to a run: real signals to real processes."""

import os
import signal
import subprocess
import sys

import pytest

from flowtuner.cli.processes import end_engines
from flowtuner.cli.stops import Preempted, Stops


def test_sigterm_stops_once_and_is_remembered():
    with Stops() as stops, pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)
    assert stops.is_preempted
    assert not stops.is_interrupted


def test_the_first_ctrl_c_raises_and_says_what_a_second_does(capsys):
    with Stops() as stops, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert stops.is_interrupted
    assert "Ctrl-C again stops at once" in capsys.readouterr().err


def test_the_handlers_of_the_surrounding_program_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Stops():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_second_ctrl_c_ends_the_engine_and_the_third_everything():
    code = """
import signal, subprocess, sys
from flowtuner.cli.stops import Stops
engine = [sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()  # flowtuner.engine.worker"]
child = subprocess.Popen(engine, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
with Stops():
    for count in range(3):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print(child.wait() if count else child.poll(), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 130
    assert done.stdout.split() == ["None", "-9"]
    assert "stopped at once" in done.stderr


def test_only_engines_are_ended():
    wait = "import sys; print('ready', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with (
        subprocess.Popen([sys.executable, "-c", f"{wait}  # flowtuner.engine.worker"], **pipes) as ended,
        subprocess.Popen([sys.executable, "-c", wait], **pipes) as spared,
    ):
        assert ended.stdout.readline() == spared.stdout.readline() == b"ready\n"
        assert end_engines(os.getpid()) == [ended.pid]
        assert ended.wait(10) == -signal.SIGKILL
        spared.stdin.close()
        assert spared.wait(10) == 0
