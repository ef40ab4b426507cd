"""The tests of the server and of its records once more, on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.postgres import VARIABLE, postgres

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_passes_on_postgres_too() -> None:
    with postgres() as address:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/api", "tests/records"]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {VARIABLE: address}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
