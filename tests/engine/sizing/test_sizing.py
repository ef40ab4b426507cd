"""What is said of memory, disk and time before a run, against what a run takes."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flowtuner.engine import hardware
from flowtuner.engine.adapters import attach
from flowtuner.engine.data.scan import Scan
from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.events import EventLog
from flowtuner.engine.families import choose_source, open_family, supported
from flowtuner.engine.launch import Engine
from flowtuner.engine.precision import resolve_precision
from flowtuner.engine.run import RunSpec
from flowtuner.engine.sizing import child, measure
from flowtuner.engine.sizing.ledger import Ledger
from flowtuner.engine.sizing.report import Sizing
from flowtuner.engine.sizing.simulation import simulate
from flowtuner.engine.sizing.work import Work
from flowtuner.errors import EngineFault
from flowtuner.options import LoadedConfig, load
from tests.conftest import tiny_options

CPU = torch.device("cpu")
REPRESENTATIVES = ("sd1x", "pixart_sigma", "flux")
CASES = [
    {"model_type": "full"},
    {"model_type": "full", "gradient_checkpointing": False},
    {"model_type": "lora", "lora_rank": 8},
    {"model_type": "lora", "lora_type": "lycoris"},
]
MIB = 1 << 20


def work_of(loaded: LoadedConfig) -> Work:
    from flowtuner.engine.cache.places import index_root
    from flowtuner.engine.data.scan import scan_datasets

    config = loaded.config
    family = open_family(config.model_family)(choose_source(config), config)
    scan: Scan = scan_datasets(loaded.datasets, config, index_dir=index_root(config), report=lambda done, total: None)
    return Work.of(family, scan)


@pytest.fixture(scope="module", params=supported())
def family_model(request: Any, tmp_path_factory: Any) -> tuple[str, Path]:
    return request.param, open_family(request.param).tiny(tmp_path_factory.mktemp(request.param) / "model")


@pytest.mark.parametrize("options", CASES, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize(
    "family_model",
    [pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.slow) for name in supported()],
    indirect=True,
)
def test_a_step_that_is_not_computed_holds_what_a_real_one_holds(
    tmp_path: Path, pictures: Path, family_model: tuple[str, Path], options: dict[str, Any]
) -> None:
    name, model = family_model
    values = (
        tiny_options(tmp_path, model, pictures) | {"model_family": name, "validation_resolution": "32x32"} | options
    )
    work = work_of(load(values=values, environ={}))
    config = work.family.config
    precision = resolve_precision(config, CPU)
    said = simulate(work, precision, CPU)

    real = work.family.load_model(precision.base, CPU)
    part = attach(real, config, work.family, precision)
    vae = work.family.load_vae(precision.base, CPU)
    pixels = work.draw_pixels(config.vae_batch_size, precision.base)
    with Ledger([*vae.module.parameters(), *vae.module.buffers()]) as encoding:
        latents = vae.encode(pixels)
    batch = work.batch(latents.shape[1:], precision.base)
    real.train()
    with Ledger([*real.parameters(), *real.buffers(), *part.parameters()]) as step:
        loss = compute_loss(
            work.family, real, work.family.noise_schedule(), batch.latents, batch.text, torch.Generator(), config
        )
        loss.backward()
    assert said.latent == latents.shape[1:]
    assert said.weights == sum(one.numel() for one in work.family.load_model(precision.base, CPU).parameters())
    assert said.trained == sum(one.numel() for one in part.parameters())
    assert said.encoding == pytest.approx(encoding.peak + pixels.nbytes, rel=0.02)
    assert said.step == pytest.approx(step.peak, rel=0.05)


def test_the_ledger_counts_what_is_held_and_forgets_what_is_not() -> None:
    weight = torch.zeros(MIB // 4)
    with Ledger([weight]) as ledger:
        view = weight.view(2, -1).t()  # the same memory, seen otherwise
        doubled = view * 2
        del doubled
        halved = view / 2
    assert ledger.peak == halved.nbytes == MIB


def test_what_does_not_fit_is_refused_with_what_does(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load(values=tiny_run | {"gradient_checkpointing": False, "validation_resolution": "32x32"}, environ={})
    spec = RunSpec("estimate", loaded, tmp_path)
    spec.save(tmp_path / "run.json")

    def say(room: int) -> Sizing:
        monkeypatch.setattr(child, "find_device", lambda: ("cpu", room))
        monkeypatch.setattr(child, "read_resident", lambda: 100 * MIB)  # this process holds all tests' libraries
        child.main(str(tmp_path / "run.json"))
        return Sizing.from_json(json.loads(capsys.readouterr().out.splitlines()[-1]))

    roomy = say(1 << 40)
    assert roomy.fits and not roomy.remedies
    assert roomy.peak == max(roomy.phases.values()) == roomy.phases["training"]
    assert roomy.steps == tiny_run["max_train_steps"]
    narrow = say(roomy.peak - MIB)
    assert not narrow.fits
    problem, remedy = narrow.refuse()
    assert problem.startswith("will not fit: about ") and "training" in problem and "what is computed with" in problem
    assert "train_batch_size=1 with gradient_checkpointing=true" in remedy and "model_type=lora" in remedy
    assert "use_ema" not in narrow.remedies[0]  # nothing is averaged that could be left out
    hopeless = say(100 * MIB)
    assert hopeless.refuse()[1] == "Take a larger machine."


def test_a_process_of_its_own_counts_and_tries(tiny_run: dict[str, Any]) -> None:
    loaded = load(values=tiny_run | {"validation_resolution": "32x32"}, environ={})
    sizing = measure.measure(loaded, rehearses=True)
    assert sizing.unmeasured == ""
    assert sizing.fits and sizing.device == "cpu"
    assert 0 < sizing.measured["step_seconds"] < 5
    assert sizing.seconds == pytest.approx(
        sizing.measured["step_seconds"] * sizing.steps + sizing.measured["caching_seconds"]
    )
    assert sizing.peak >= sizing.measured["training"] > sizing.process
    said = "\n".join(sizing.describe())
    assert "fits" in said and "cache of pictures" in said and f"{sizing.steps} steps of " in said
    assert not Path(loaded.config.output_dir, "logs").exists()  # nothing of the run was started


def test_a_device_that_gave_out_is_believed_more_than_the_count(
    tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(values=tiny_run, environ={})
    dying = "import json, os, signal, sys; from dataclasses import asdict; print(sys.argv[1]); sys.stdout.flush(); {}"
    counted = json.dumps(asdict(Sizing("cpu", 1 << 40, 0, {}, {"training": 1}, {}, 6)))
    for end in ("os.kill(os.getpid(), signal.SIGKILL)", "sys.exit('CUDA out of memory. Tried to allocate 2 GiB')"):
        monkeypatch.setattr(measure, "COMMAND", (sys.executable, "-c", dying.format(end), counted))
        assert not measure.measure(loaded, rehearses=True).fits
    monkeypatch.setattr(measure, "COMMAND", (sys.executable, "-c", dying.format("pass"), counted))
    assert measure.measure(loaded, rehearses=True).fits


def test_what_cannot_be_counted_is_a_fault_with_its_reason(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    loaded = load(values=tiny_run, environ={})
    broken = replace(loaded, config=loaded.config.model_copy(update={"pretrained_model_name_or_path": str(tmp_path)}))
    with pytest.raises(EngineFault, match=r"could not be counted: .*model_index\.json is missing"):
        measure.measure(broken, rehearses=False)


def test_small_models_are_not_looked_at_more_closely(tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(values=tiny_run, environ={})
    assert measure.look_closer(loaded) is None
    monkeypatch.setattr(measure, "find_device", lambda: ("cpu", 400 * MIB))
    looked = measure.look_closer(loaded)
    assert looked is not None and not looked.measured


def test_a_model_that_is_on_the_hub_yet_is_looked_at(tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before gigabytes of it are fetched: its configuration is enough."""
    asked: list[LoadedConfig] = []
    monkeypatch.setattr(measure, "measure", lambda loaded, rehearses: asked.append(loaded))
    for source, is_looked_at in (("somebody/something", True), (str(Path(__file__).parent), False)):
        asked.clear()
        measure.look_closer(load(values=tiny_run | {"pretrained_model_name_or_path": source}, environ={}))
        assert bool(asked) == is_looked_at


def test_a_container_has_what_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(hardware, "CONTAINER_LIMIT", limit)
    here = hardware.read_memory_bytes()
    limit.write_text(f"{512 * MIB}\n")
    assert hardware.read_memory_bytes() == 512 * MIB < here
    limit.write_text("max\n")
    assert hardware.read_memory_bytes() == here


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "variant", "options"),
    [
        ("pixart_sigma", {}, {"model_type": "full"}),
        ("pixart_sigma", {"width": 512, "layers": 10, "text_width": 512}, {"model_type": "full"}),
        ("pixart_sigma", {"width": 512, "layers": 10, "text_width": 512}, {"model_type": "lora"}),
        ("pixart_sigma", {"width": 512, "layers": 10, "text_width": 512}, {"model_type": "full", "use_ema": True}),
        ("sd1x", {}, {"model_type": "full"}),
        ("flux", {}, {"model_type": "lora"}),
    ],
    ids=["tiny", "mid", "mid-lora", "mid-ema", "sd1x", "flux"],
)
def test_the_engine_holds_what_was_said(
    tmp_path: Path,
    pictures: Path,
    family: str,
    variant: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Within a fifth of what the engine's process really held, from its start to its last checkpoint."""
    model = open_family(family).tiny(tmp_path / "model", **variant)
    values = tiny_options(tmp_path, model, pictures) | {"model_family": family, "torch_num_threads": 1} | options
    dataloader = Path(values["data_backend_config"])
    dataloader.write_text(dataloader.read_text().replace('"resolution": 32', '"resolution": 128'))
    loaded = load(values=values | {"max_train_steps": 3}, environ={})
    sizing = measure.measure(loaded, rehearses=True)
    spec = RunSpec("run", loaded, Path(loaded.config.output_dir))
    with EventLog(spec.event_log, spec.run_id) as log, Engine(spec, log) as engine:
        engine.start()
        watch = Watch(engine)
        engine.cache_text()
        engine.cache_latents()
        engine.prepare()
        engine.train(3)
        engine.save_checkpoint()
        held = watch.end()
    print(f"said over held: {sizing.peak / held:.2f}")
    assert sizing.peak == pytest.approx(held, rel=0.2)


class Watch:
    """Reads the highest memory of an engine's process, again and again."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._highest, self._is_over = engine, 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> int:
        self._is_over.set()
        self._thread.join()
        return self._highest

    def _look(self) -> None:
        while True:
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self._engine.pid}/status").read_text())
            self._highest = max(self._highest, int(found[1]) << 10) if found else self._highest
            if self._is_over.is_set():
                return
            time.sleep(0.05)
