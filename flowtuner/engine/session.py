"""A run's live state in the engine process, and the orders it obeys."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from flowtuner.engine import checkpoints
from flowtuner.engine.assembly import assemble, check_weights, pack_random_states, restore_parts, write_parts, writing
from flowtuner.engine.capsule import Capsule
from flowtuner.engine.card import CardFacts, write_papers
from flowtuner.engine.events import CHECKPOINT, NOTIFICATION, STAGE, VALIDATION
from flowtuner.engine.families import choose_source, open_family
from flowtuner.engine.family import Family
from flowtuner.engine.flag import Flag
from flowtuner.engine.library import Library
from flowtuner.engine.lock import OutputLock
from flowtuner.engine.loop import NEVER, Trainer, train
from flowtuner.engine.meter import Meter, wall_clock
from flowtuner.engine.plan import count_steps, steps_per_epoch
from flowtuner.engine.precision import Precision, resolve_precision
from flowtuner.engine.ranks import Ranks, Wish
from flowtuner.engine.run import Portion, RunSpec
from flowtuner.engine.sealing import Sealer
from flowtuner.engine.seed import choose_seed
from flowtuner.engine.validation import run_validation
from flowtuner.errors import CheckpointError, EngineFault

Emit = Callable[[str, dict[str, Any]], None]


class Session:
    """Obeys one order at a time; holds the model from the first leg to the last."""

    def __init__(
        self,
        spec: RunSpec,
        emit: Emit,
        stop: Wish,
        ranks: Ranks = Ranks(),  # noqa: B008
        pause: Flag | None = None,
    ) -> None:
        self._ranks = ranks
        self._pause = pause or Flag()
        self.config = spec.loaded.config
        self.output_dir = spec.output_dir
        self._spec = spec
        self._emit = emit
        self._stop = stop
        self._lock: OutputLock | None = None
        self._device = torch.device("cuda", ranks.rank) if torch.cuda.is_available() else torch.device("cpu")
        self._trainer: Trainer | None = None
        self._meter: Meter | None = None
        self._saved_step = 0
        self._sealer = Sealer(self.output_dir, self.config.checkpoints_total_limit, self._warn, self._complain)

    @cached_property
    def _precision(self) -> Precision:
        return resolve_precision(self.config, self._device)

    @cached_property
    def _library(self) -> Library:
        # The first thing that touches the output folder: from here on it is this engine's alone.
        if self._ranks.is_first:
            self._lock = OutputLock(self.output_dir, self._warn)
        return Library(
            self._spec.loaded,
            self._family,
            self._precision,
            self._device,
            self._report_stage,
            self._ranks,
            self.output_dir,
        )

    @cached_property
    def _family(self) -> Family:
        return open_family(self.config.model_family)(choose_source(self.config), self.config)

    def look_at_data(self) -> dict[str, Any]:
        """Looks at every picture, so that others who share the cache folder need not."""
        return {"samples": len(self._library.scan.samples)}

    def cache_text(self, portion: Sequence[int] = (0, 1)) -> dict[str, Any]:
        """Encodes the captions and prompts that are missing, or one portion of them."""
        return self._library.cache_text(Portion(*portion))

    def cache_latents(self, portion: Sequence[int] = (0, 1)) -> dict[str, Any]:
        """Encodes the pictures that are missing, or one portion of them."""
        return self._library.cache_latents(Portion(*portion))

    def prepare(self, resume: str | None) -> dict[str, Any]:
        """Loads the model, and the newest checkpoint if the run continues one."""
        library = self._library
        point = self._ranks.agree(self._find_point(resume) if self._ranks.is_first else None)
        saved = checkpoints.read_state(point) if point else None
        seed = self._ranks.agree(saved.seed if saved else choose_seed(self.config.seed))
        sampler = library.open_sampler(seed)
        total_steps = count_steps(self.config, sampler.micro_batches_in(self.config.num_train_epochs))
        in_epoch = steps_per_epoch(self.config, sampler.micro_batches_per_epoch)

        self._report_stage("init_load_base_model", "running", "loading the model")
        trainer = assemble(
            self.config, self._family, self._precision, self._device, seed, total_steps, library.open_feed, self._ranks
        )
        self._report_stage("init_load_base_model", "completed", "model loaded")
        if point and saved:
            self._resume(trainer, point, saved)
        if self._ranks.is_first:
            self._set_aside(trainer.step)
        if trainer.step > total_steps:
            self._warn(f"step {trainer.step} is already beyond the {total_steps} steps asked for: nothing is trained.")
        # Only now: a trainer that is half restored must not be saved by a stop.
        self._trainer = trainer
        self._saved_step = trainer.step
        self._meter = Meter(self._emit, total_steps, in_epoch, wall_clock)
        if self._ranks.is_first:
            self._capsule.save(self.output_dir)
        return {"step": trainer.step, "total_steps": total_steps, "steps_per_epoch": in_epoch}

    def train(self, until: int, pausable: bool = False) -> dict[str, Any]:
        """Trains up to a step, or to the next step if a stop or a pause was asked for."""
        trainer, meter = self._ready()
        meter.restart_clock()
        train(trainer, until, self._stop, meter, self._pause if pausable else NEVER)
        self._sealer.check()
        is_short = trainer.step < until
        is_paused = pausable and self._pause.is_set()
        if pausable:
            self._pause.clear()
        return {"step": trainer.step, "loss": meter.loss, "stopped": is_short and not is_paused, "paused": is_paused}

    def save_checkpoint(self, held: Sequence[str] | None = None, waits: bool = True) -> dict[str, Any]:
        """Saves the present step, then lets the oldest checkpoints go, but not those that are still being published.

        Without waiting training may go on once all is written; the checkpoint is announced when it is whole.
        """
        trainer, meter = self._ready()
        meter.flush()
        check_weights(trainer)
        folder = checkpoints.folder_of(self.output_dir, trainer.step)
        random_states = self._ranks.gather(pack_random_states())
        if not self._ranks.is_first:
            if trainer.sharding:
                write_parts(trainer, None)
            self._saved_step = trainer.step
            return {}
        self._sealer.settle()
        self._report_stage("checkpoint_save", "running", folder.name)
        state = checkpoints.SavedState(
            global_step=trainer.step,
            micro_batches=trainer.micro_batches,
            epoch=trainer.micro_batches // trainer.feed.sampler.micro_batches_per_epoch,
            seed=trainer.seed,
            identity=self._identity,
            data_set=self._library.digest,
            noted=checkpoints.note_options(self.config),
        )
        about = {name: getattr(self.config, name) for name in ("model_family", "model_flavour", "model_type")}
        with writing(folder):
            seal = checkpoints.write_checkpoint(
                folder, state, lambda part: write_parts(trainer, part, random_states), about
            )
        saved = {"path": str(folder), "step": trainer.step, "is_final": False}
        self._sealer.begin(folder, seal, held, partial(self._announce_checkpoint, saved))
        if waits:
            self._sealer.settle()
        return saved

    def settle(self) -> dict[str, Any]:
        """Waits until the newest checkpoint is whole."""
        self._sealer.settle()
        return {}

    def validate(self) -> dict[str, Any]:
        """Renders the validation prompts without touching training in any way."""
        trainer, meter = self._ready()
        with contextlib.ExitStack() as stack:
            if trainer.sharding:
                stack.enter_context(trainer.shown_weights())
                stack.enter_context(trainer.whole())
            return self._validate(trainer, meter) if self._ranks.is_first else {}

    def _validate(self, trainer: Trainer, meter: Meter) -> dict[str, Any]:
        self._report_stage("validation", "running", f"validating at step {trainer.step}")
        report = run_validation(
            self._family,
            trainer.model,
            self._library.open_vae,
            self._library.read_text,
            self.config,
            trainer.step,
            self.output_dir,
            references=self._library.read_references,
            ema_weights=None if trainer.sharding else trainer.shown_weights(),
            is_stopped=self._stop.is_set,
        )
        meter.restart_clock()
        if report.error:
            self._warn(f"validation at step {report.step} failed, training goes on: {report.error}")
        self._report_stage("validation", "failed" if report.error else "completed", f"validated at step {report.step}")
        result = vars(report) | {kind: [str(path) for path in getattr(report, kind)] for kind in ("images", "videos")}
        result["sheet"] = str(report.sheet) if report.sheet else None
        self._emit(VALIDATION, result)
        return result

    def save_release(self) -> dict[str, Any]:
        """Writes the final weights, those that validation showed, in the layout that inference loads."""
        trainer, _ = self._ready()
        check_weights(trainer)
        if not self._ranks.is_first:
            with trainer.shown_weights(), trainer.whole():
                return {}
        self._sealer.settle()
        self._report_stage("model_save", "running", "writing the final weights")
        with trainer.shown_weights(), trainer.whole(), writing(self.output_dir / "the release"):
            trainer.part.save_release(self.output_dir)
            write_papers(self.output_dir, self._card_facts(trainer.step))
        self._capsule.with_release(self.output_dir, trainer.step).save(self.output_dir)
        self._report_stage("model_save", "completed", "final weights written")
        saved = {"path": str(self.output_dir), "step": trainer.step, "is_final": True}
        self._emit(CHECKPOINT, saved)
        return saved

    def close(self) -> None:
        """Saves the steps that no checkpoint holds."""
        with contextlib.suppress(CheckpointError):  # it was told; what it should have held is saved now
            self._sealer.settle()
        if self._trainer and self._trainer.step > self._saved_step:
            self.save_checkpoint()
        if "_library" in vars(self):
            self._library.close()
        if self._lock:
            self._lock.release()

    def _find_point(self, resume: str | None) -> Path | None:
        checkpoints.remove_leftovers(self.output_dir)
        wanted = resume or self.config.resume_from_checkpoint
        point = checkpoints.find_resume_point(self.output_dir, wanted, self._warn)
        self._library.scan  # noqa: B018  before the others look, so that they find what this one remembers
        return point

    def _resume(self, trainer: Trainer, point: Path, saved: checkpoints.SavedState) -> None:
        self._report_stage("init_resume_checkpoint", "running", f"resuming from {point.name}")
        checkpoints.check_identity(saved, self._identity, point)
        if saved.data_set != self._library.digest:
            self._warn(f"the data set changed since {point.name}: training goes on with the new one.")
        changes = checkpoints.list_changes(saved, checkpoints.note_options(self.config))
        restore_parts(trainer, point)
        for change in changes:
            self._warn(f"resuming from {point.name}: {change}.")
        self._report_stage("init_resume_checkpoint", "completed", f"resumed from {point.name}")

    def _set_aside(self, step: int) -> None:
        for folder in checkpoints.set_aside_newer(self.output_dir, step):
            self._warn(f"training goes on from step {step}; a checkpoint beyond it was set aside as {folder.name}.")

    def _card_facts(self, step: int) -> CardFacts:
        pictures = Counter(sample.dataset_id for sample in self._library.scan.samples)
        return CardFacts(self._spec.loaded, type(self._family), step, pictures)

    @cached_property
    def _capsule(self) -> Capsule:
        trainer, _ = self._ready()
        return Capsule.of(
            self._spec.loaded,
            seed=trainer.seed,
            data=self._library.summary,
            model=self._library.fingerprints,
            device=torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
        )

    @property
    def _identity(self) -> dict[str, Any]:
        return checkpoints.identity_of(self.config, self._ranks.world)

    def _ready(self) -> tuple[Trainer, Meter]:
        if self._trainer is None or self._meter is None:
            raise EngineFault("the engine was asked to work before `prepare` loaded the model")
        return self._trainer, self._meter

    def _announce_checkpoint(self, saved: dict[str, Any]) -> None:
        self._saved_step = saved["step"]
        self._report_stage("checkpoint_save", "completed", Path(saved["path"]).name)
        self._emit(CHECKPOINT, saved)

    def _report_stage(self, key: str, status: str, label: str, current: int = 0, total: int = 0) -> None:
        if self._stop.is_set() and key.endswith("_cache"):
            raise EngineFault("stopped on request while caching; what was cached stays")
        self._emit(STAGE, {"key": key, "status": status, "label": label, "current": current, "total": total})

    def _warn(self, message: str) -> None:
        self._emit(NOTIFICATION, {"severity": "warning", "message": message})

    def _complain(self, message: str) -> None:
        self._emit(NOTIFICATION, {"severity": "error", "message": message})
