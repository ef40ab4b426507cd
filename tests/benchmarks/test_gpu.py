"""The GPU benchmark runs to its table where there is neither a GPU nor Prefect."""

import subprocess
import sys

import pytest

WITHOUT_PREFECT = (
    "import sys, runpy; sys.modules['prefect'] = None; sys.argv = ['gpu', *sys.argv[1:]];"
    "runpy.run_module('benchmarks.gpu', run_name='__main__')"
)


def run(*arguments):
    command = [sys.executable, "-c", WITHOUT_PREFECT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_case_runs_in_tiny():
    done = run("--size", "tiny", "--no-compile", "--steps", "1")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith(("| PixArt", "| Flux"))]
    assert len(rows) == 4
    assert all(float(row[2]) > 0 and float(row[5]) > 0 for row in rows)


@pytest.mark.slow
def test_real_sizes_want_a_gpu_and_say_so():
    import torch

    if not torch.cuda.is_available():
        done = run()
        assert (done.returncode, done.stdout) == (2, "")
        assert "no CUDA device" in done.stderr
