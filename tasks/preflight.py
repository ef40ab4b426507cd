"""The first step: everything that can be known before the first training step is checked, all faults at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flowtuner.engine.estimate import estimate_checkpoint
from flowtuner.engine.preflight import inspect_run
from flowtuner.engine.sizing.measure import look_closer
from flowtuner.errors import ConfigError, EngineFault, Fault
from flowtuner.options import LoadedConfig, load
from flowtuner.publishing.checks import check_publishing
from flowtuner.publishing.preflight import Inspection, inspect_publishing
from flowtuner.telling.hooks import find_faults
from tasks.credentials import find_credentials_in_options


@dataclass(frozen=True)
class CheckedRun:
    """What a run was asked to do, found to be possible."""

    loaded: LoadedConfig
    found: Inspection
    will_publish: bool = True

    @property
    def output_dir(self) -> Path:
        """The run's own folder."""
        return Path(self.loaded.config.output_dir)


@task(task_run_name="check everything", cache_policy=NO_CACHE)
def check_run(
    config: dict[str, Any], env: str | None = None, config_file: str | None = None, *, will_publish: bool = True
) -> CheckedRun:
    """Reads the options, then looks at model, data, disk and destinations; raises ConfigError with every fault."""
    if faults := find_credentials_in_options(config):
        raise ConfigError(faults)
    loaded = load(
        env=env, config_file=Path(config_file) if config_file else None, values=config, checks=[check_publishing]
    )
    for finding in inspect_run(loaded):
        if finding.level == "error":
            faults.append(Fault(finding.check, None, "", finding.message.rstrip("."), suggestion=finding.fix))
        else:
            get_run_logger().warning("%s", finding)
    faults += [] if faults else _inspect_memory(loaded)
    found = inspect_publishing(loaded, estimate_checkpoint(loaded.config)) if will_publish else Inspection()
    for warning in found.warnings:
        get_run_logger().warning("%s", warning)
    if faults := [*faults, *found.faults, *find_faults(loaded.config.webhook_config)]:
        raise ConfigError(faults)
    return CheckedRun(loaded, found, will_publish=will_publish)


def _inspect_memory(loaded: LoadedConfig) -> list[Fault]:
    """Refuses what will not fit, in seconds: a step is gone through without being computed."""
    try:
        sizing = look_closer(loaded)
    except EngineFault as error:
        get_run_logger().warning("%s; whether the run fits will be seen", error)
        return []
    if sizing is None:
        return []
    for line in sizing.describe():
        get_run_logger().info("%s", line)
    if sizing.fits:
        return []
    problem, remedy = sizing.refuse()
    return [Fault("memory", None, "", problem.rstrip("."), suggestion=remedy)]
