"""The deployments every Flowtuner installation has; `prefect.yaml` says the same for `prefect deploy`."""

from __future__ import annotations

from dataclasses import dataclass

WORK_POOL = "flowtuner"
ENTRYPOINTS = {"train": "flows.train:train", "cache": "flows.cache:cache", "publish": "flows.publish:publish"}


@dataclass(frozen=True)
class Deployment:
    """One deployment; a cron schedule begins inactive, so that nothing starts before somebody wants it."""

    name: str
    flow: str
    description: str
    tags: tuple[str, ...] = ()
    cron: str | None = None

    @property
    def entrypoint(self) -> str:
        """The module and function, never a file path: those would put flows/ first on the import path."""
        return ENTRYPOINTS[self.flow]


DEPLOYMENTS = (
    Deployment("train", "train", "Trains, validates and publishes a model.", ("flowtuner", "train")),
    Deployment("cache", "cache", "Fills the text and latent caches, nothing more.", ("flowtuner", "cache")),
    Deployment("publish", "publish", "Publishes a finished output folder or checkpoint.", ("flowtuner", "publish")),
    Deployment(
        "retrain",
        "train",
        "Trains on a schedule: set the parameters, then activate the schedule.",
        ("flowtuner", "train", "retrain"),
        cron="0 3 * * 0",
    ),
)
