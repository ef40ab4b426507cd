"""Options about checkpoints: when they are saved, how many are kept, and where a run goes on."""

import re
from typing import Any, Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from flowtuner.options.fields import Section, option

DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", re.I)
UNITS_S = (86400, 3600, 60, 1)


class CheckpointOptions(Section):
    """When a run saves itself."""

    resume_from_checkpoint: str | None = option(
        "latest",
        "`latest` goes on from the newest checkpoint or starts afresh; else its name, path or URI at a destination; "
        "empty: starts afresh.",
        env=["RESUME_CHECKPOINT"],
    )
    resume_from_published: bool = option(
        True,
        "With `latest` and no checkpoint in output_dir: goes on from the newest that a destination holds of this run.",
    )
    checkpoint_step_interval: int | None = option(
        500,
        "Steps between checkpoints; 0: only at the end.",
        ge=0,
        aliases=["checkpointing_steps", "save_steps"],
        env=["CHECKPOINT_STEP_INTERVAL", "CHECKPOINTING_STEPS"],
    )
    checkpoint_epoch_interval: int | None = option(
        None, "Epochs between checkpoints.", ge=1, env=["CHECKPOINT_EPOCH_INTERVAL"]
    )
    checkpoints_total_limit: int = option(
        5,
        "Checkpoints kept, the oldest goes first; 0: all.",
        ge=0,
        aliases=["save_total_limit"],
        env=["CHECKPOINTING_LIMIT"],
    )
    checkpointing_rolling_steps: int = option(0, "Steps between rolling checkpoints; 0: none.", ge=0, accepted=True)
    checkpoints_rolling_total_limit: int = option(1, "Rolling checkpoints kept.", ge=1, accepted=True)
    checkpointing_use_tempdir: bool = option(
        True, "Writes a checkpoint beside its place and moves it there when whole; Flowtuner always does."
    )
    delete_invalid_checkpoints: bool = option(
        False, "Deletes checkpoints that are not whole when a run resumes; Flowtuner sets them aside.", accepted=True
    )
    disk_low_threshold: str | None = option(None, "Free space below which a run acts, such as 20G.", accepted=True)
    disk_low_action: Literal["stop", "wait", "script"] = option("stop", "What it does then.", accepted=True)
    disk_low_script: str | None = option(None, "Script for disk_low_action=script.", accepted=True)
    disk_low_check_interval: int = option(30, "Seconds between looks while waiting.", ge=1, accepted=True)
    post_checkpoint_script: str | None = option(
        None,
        "Command run after each checkpoint; may contain {local_checkpoint_path} and others.",
        env=["POST_CHECKPOINT_SCRIPT"],
    )
    grace_seconds: float = option(
        25.0, "Seconds that a run which is stopped may take to save, publish and leave.", ge=0
    )
    max_runtime: float | None = option(
        None,
        "How long the machine may be used, such as 2h, 1h30m or 5400 (seconds): the run stops and saves in time.",
        gt=0,
    )

    @field_validator("max_runtime", mode="before")
    @classmethod
    def _read_duration(cls, value: Any) -> Any:
        text = str(value).replace(" ", "") if isinstance(value, str) else ""
        found = DURATION.fullmatch(text)
        if found and any(found.groups()):
            return sum(float(part or 0) * unit for part, unit in zip(found.groups(), UNITS_S, strict=True))
        if text and not text.replace(".", "", 1).isdigit():
            raise PydanticCustomError("duration", "is no length of time", {"allowed": "such as 2h, 1h30m or 5400"})
        return value
