"""Caching in portions: together what one process would have made, whatever is killed; Dask spreads them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flowtuner.engine.cache.shards import list_shards
from flowtuner.engine.events import EventLog
from flowtuner.engine.launch import Engine
from flowtuner.engine.run import Portion, RunSpec
from flowtuner.errors import ConfigError, EngineFault
from flowtuner.options import load
from tasks.portions import encode_portion, portion_spec, stopping_portions
from tasks.runners import make_runner

BATCHES = {"vae_batch_size": 2, "text_encoder_batch_size": 3, "write_batch_size": 4}


def rows_in(root: Path) -> dict[str, bytes]:
    rows = {}
    for shard in list_shards(root)[0]:
        data = shard.path.read_bytes()
        for group, tensors in enumerate(shard.tensors):
            for row, key in enumerate(shard.keys[group]):
                places = [place for _, place in sorted(tensors.items())]
                rows[key] = b"".join(data[p.offset + row * p.row_bytes :][: p.row_bytes] for p in places)
    return rows


def spec_of(values: dict, root: Path, name: str) -> RunSpec:
    """The run with caches of its own."""
    folder = root / name
    folder.mkdir()
    entries = json.loads(Path(values["data_backend_config"]).read_text())
    for entry in entries:
        entry.pop("cache_dir_vae", None)
        entry.pop("cache_dir", None)
    (folder / "data.json").write_text(json.dumps(entries))
    own = {"output_dir": str(folder / "output"), "data_backend_config": str(folder / "data.json")}
    return RunSpec(name, load(values=values | BATCHES | own, environ={}), folder / "output")


def caches_of(spec: RunSpec) -> tuple[dict[str, bytes], dict[str, bytes]]:
    return rows_in(spec.output_dir / "cache" / "latents"), rows_in(spec.output_dir / "cache" / "text")


def fill_whole(spec: RunSpec) -> None:
    spec.event_log.parent.mkdir(parents=True)
    log = EventLog(spec.event_log, spec.run_id)
    with Engine(spec, log) as engine:
        engine.cache_text()
        engine.cache_latents()
    log.close()


@pytest.mark.slow
def test_two_processes_make_what_one_would_have_made(tiny_run, tmp_path):
    alone, together = spec_of(tiny_run, tmp_path, "alone"), spec_of(tiny_run, tmp_path, "together")
    fill_whole(alone)
    reports = {}

    def fill(number):
        reports[number] = encode_portion(together, number, 2)

    threads = [threading.Thread(target=fill, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caches_of(together) == caches_of(alone)
    assert [reports[1][1].encoded, reports[2][1].encoded] == [8, 8]
    again = encode_portion(together, 1, 2)
    assert [report.encoded for report in again] == [0, 0]


@pytest.mark.slow
def test_a_killed_portion_goes_on_where_it_was(tiny_run, tmp_path):
    alone, killed = spec_of(tiny_run, tmp_path, "alone"), spec_of(tiny_run, tmp_path, "killed")
    fill_whole(alone)
    own = portion_spec(killed, 1, 1)
    own.event_log.parent.mkdir(parents=True)
    log = EventLog(own.event_log, own.run_id)
    engine = Engine(own, log)
    engine.cache_text(Portion(0, 1))
    os.kill(engine.pid, signal.SIGKILL)
    engine.close()
    log.close()
    texts, pictures = encode_portion(killed, 1, 1)
    assert texts.encoded == 0 and texts.hits == texts.total and pictures.encoded == 16
    assert caches_of(killed) == caches_of(alone)


@pytest.mark.slow
def test_portions_stop_when_the_job_is_left(tiny_run, tmp_path):
    spec = spec_of(tiny_run, tmp_path, "stopped")
    failed = threading.Event()

    def fill():
        try:
            encode_portion(spec, 1, 1)
        except EngineFault:
            failed.set()

    thread = threading.Thread(target=fill)
    with pytest.raises(ZeroDivisionError), stopping_portions(spec):
        thread.start()
        deadline = time.monotonic() + 100
        log = portion_spec(spec, 1, 1).engine_log
        while not (log.exists() and "ready" in log.read_text()) and time.monotonic() < deadline:
            thread.join(0.05)
        raise ZeroDivisionError
    thread.join(100)
    assert not thread.is_alive() and (spec.output_dir / "portions" / "stop").exists()


DASK = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
RAY = {"num_cpus": 2, "include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": 100 << 20}
CLUSTERS = {"dask": {"cluster_kwargs": DASK}, "ray": {"init_kwargs": RAY}}


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("runner", CLUSTERS)
def test_a_cluster_spreads_the_portions_over_its_workers(tiny_run, tmp_path, runner):
    alone, spread = spec_of(tiny_run, tmp_path, "alone"), spec_of(tiny_run, tmp_path, "spread")
    fill_whole(alone)
    options = (
        tiny_run
        | BATCHES
        | {
            "output_dir": str(spread.output_dir),
            "data_backend_config": str(tmp_path / "spread" / "data.json"),
        }
    )
    (tmp_path / "config.json").write_text(json.dumps(options))
    command = [sys.executable, "-m", "flowtuner.cli", "cache", "--config", str(tmp_path / "config.json")]
    command += ["--shards", "2", "--task-runner", runner]
    command += ["--task-runner-options", json.dumps(CLUSTERS[runner])]
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "FLOWTUNER_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        command,
        env=os.environ | home | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert caches_of(spread) == caches_of(alone)
    folders = sorted(path.name for path in (spread.output_dir / "portions").iterdir() if path.is_dir())
    assert folders == ["1-of-2", "2-of-2"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dusk", {}, "is no task runner.*threads, dask, ray"),
        ("ray", {}, r"pip install 'flowtuner.ray.'"),
        ("threads", {"workers": 2}, "not what threads takes"),
    ],
)
def test_runners_that_cannot_be_had(name, options, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(ConfigError, match=words):
        make_runner(name, options, 2)
