"""Where the portions of a caching job run: threads of this process, or the workers of a Dask or Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flowtuner.errors import ConfigError, Fault

RunnerName = Literal["threads", "dask", "ray"]


def make_runner(name: str, options: Mapping[str, Any], portions: int) -> TaskRunner[Any]:
    """The task runner of this name; ConfigError if it is not known or its package is missing."""
    make = RUNNERS.get(name)
    if make is None:
        raise ConfigError([Fault("task_runner", name, "", "is no task runner", ", ".join(RUNNERS))])
    try:
        return make(dict(options), portions)
    except ImportError as error:
        advice = f"pip install 'flowtuner[{name}]'"
        problem = f"needs the package prefect-{name}, which is not installed"
        raise ConfigError([Fault("task_runner", name, "", problem, "", advice)]) from error
    except TypeError as error:
        raise ConfigError([Fault("task_runner_options", None, "", f"are not what {name} takes: {error}")]) from error


def _make_threads(options: dict[str, Any], portions: int) -> TaskRunner[Any]:
    return ThreadPoolTaskRunner(**{"max_workers": portions} | options)


def _make_dask(options: dict[str, Any], portions: int) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    runner: TaskRunner[Any] = DaskTaskRunner(**options)
    return runner


def _make_ray(options: dict[str, Any], portions: int) -> TaskRunner[Any]:
    from prefect_ray.task_runners import RayTaskRunner

    runner: TaskRunner[Any] = RayTaskRunner(**options)
    return runner


RUNNERS: Mapping[str, Callable[[dict[str, Any], int], TaskRunner[Any]]] = {
    "threads": _make_threads,
    "dask": _make_dask,
    "ray": _make_ray,
}
