"""A session that counts instead of learning: real checkpoints, real events, steps of a millisecond.

`FAKE_ENGINE` in the environment asks for faults: `die@7` kills the process once when it reaches step 7, `slow` makes a
step take 50 ms, `slow_save` makes a save take 2 s, `late_seal` leaves checkpoints unfinished until the process has
died once, `bad_validation` lets every validation fail.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from flowtuner.engine import checkpoints
from flowtuner.engine.events import CHECKPOINT, METRIC, PROGRESS, STAGE, VALIDATION


class Session:
    """Answers the same orders as the real session."""

    def __init__(self, spec, emit, stop, ranks=None, pause=None) -> None:  # type: ignore[no-untyped-def]
        self.config, self.output_dir = spec.loaded.config, Path(spec.loaded.config.output_dir)
        self._emit, self._stop, self._pause = emit, stop, pause
        self._faults = os.environ.get("FAKE_ENGINE", "").split(",")
        self.step = self._saved_step = 0
        self._is_ready = False

    def cache_text(self) -> dict[str, Any]:
        self._emit(STAGE, {"key": "text_cache", "status": "completed", "label": "texts", "current": 8, "total": 8})
        return {"total": 8, "hits": 8, "encoded": 0, "seconds": 0.0, "quarantined": []}

    def cache_latents(self) -> dict[str, Any]:
        return {"total": 8, "hits": 7, "encoded": 0, "seconds": 0.0, "quarantined": [["bad.png", "cannot be read"]]}

    def prepare(self, resume: str | None) -> dict[str, Any]:
        point = checkpoints.find_resume_point(self.output_dir, resume or "latest", lambda text: None)
        self.step = self._saved_step = checkpoints.read_state(point).global_step if point else 0
        self._is_ready = True
        return {"step": self.step, "total_steps": self.config.max_train_steps, "steps_per_epoch": 8.0}

    def train(self, until: int, pausable: bool = False) -> dict[str, Any]:
        while self.step < until and not self._stop.is_set() and not (pausable and self._pause.is_set()):
            self.step += 1
            if "slow" in self._faults:
                time.sleep(0.05)
            if f"die@{self.step}" in self._faults and self._is_first_time():
                os.kill(os.getpid(), signal.SIGKILL)
            loss = 1 / self.step
            self._emit(METRIC, {"step": self.step, "loss": loss, "learning_rate": 1e-3, "grad_norm": 0.5})
        total = self.config.max_train_steps
        about = {"epoch": 1, "loss": 1 / max(1, self.step), "learning_rate": 1e-3, "steps_per_s": 9.0, "eta_s": 1.0}
        self._emit(PROGRESS, {"step": self.step, "total_steps": total, **about})
        paused = pausable and self._pause.is_set()
        if pausable:
            self._pause.clear()
        stopped = self.step < until and not paused
        return {"step": self.step, "loss": 1 / max(1, self.step), "stopped": stopped, "paused": paused}

    def save_checkpoint(self, held: Sequence[str] = (), waits: bool = True) -> dict[str, Any]:
        folder = checkpoints.folder_of(self.output_dir, self.step)
        if "slow_save" in self._faults:
            self._emit(STAGE, {"key": "checkpoint_save", "status": "running", "label": "", "current": 0, "total": 0})
            time.sleep(2)
        state = checkpoints.SavedState(self.step, self.step, 0, 1, {}, "")
        seal = checkpoints.write_checkpoint(folder, state, self._write_weights, {})
        if "late_seal" in self._faults and not waits and not (self.output_dir / ".died").exists():
            return {"path": str(folder), "step": self.step, "is_final": False}
        seal()
        checkpoints.rotate(self.output_dir, self.config.checkpoints_total_limit, folder, held)
        self._saved_step = self.step
        return self._announce(folder, is_final=False)

    def settle(self) -> dict[str, Any]:
        return {}

    def validate(self) -> dict[str, Any]:
        sheet = self.output_dir / "validation_images" / f"step_{self.step}.png"
        sheet.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(sheet)
        error = "out of memory" if "bad_validation" in self._faults else None
        result = {"step": self.step, "images": [str(sheet)], "sheet": str(sheet), "prompts": ["red"], "error": error}
        result["videos"] = []
        self._emit(VALIDATION, result)
        return result

    def save_release(self) -> dict[str, Any]:
        self._write_weights(self.output_dir / "pipeline")
        return self._announce(self.output_dir, is_final=True)

    def close(self) -> None:
        if self._is_ready and self.step > self._saved_step:
            self.save_checkpoint()

    def _write_weights(self, folder: Path) -> None:
        (folder / "transformer").mkdir(parents=True, exist_ok=True)
        (folder / "transformer" / "weights.safetensors").write_text(f"weights of step {self.step}")

    def _announce(self, folder: Path, is_final: bool) -> dict[str, Any]:
        result = {"path": str(folder), "step": self.step, "is_final": is_final}
        self._emit(CHECKPOINT, result)
        return result

    def _is_first_time(self) -> bool:
        try:
            (self.output_dir / ".died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
