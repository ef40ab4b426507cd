"""Filling the caches: captions first, then pictures."""

from __future__ import annotations

from prefect.logging import get_run_logger

from flowtuner.engine.launch import Engine
from flowtuner.engine.run import CacheReport
from tasks.retries import engine_task


@engine_task("cache texts")
def cache_text(engine: Engine) -> CacheReport:
    """Encodes the captions and prompts that are not cached yet."""
    return _told("texts", engine.cache_text())


@engine_task("cache pictures")
def cache_latents(engine: Engine) -> CacheReport:
    """Encodes the pictures that are not cached yet; broken ones are put aside and named."""
    report = _told("pictures", engine.cache_latents())
    for path, reason in report.quarantined:
        get_run_logger().warning("%s is left out: %s", path, reason)
    return report


def _told(what: str, report: CacheReport) -> CacheReport:
    get_run_logger().info(
        "%d %s: %d were cached, %d encoded in %.1f s", report.total, what, report.hits, report.encoded, report.seconds
    )
    return report
