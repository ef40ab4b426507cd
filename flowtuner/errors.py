"""Every exception a user can meet, as one tree; retry policy is a type test on it.

FlowtunerError
├── Terminal            trying again changes nothing: a person has to act
│   ├── ConfigError     options, dataloader or publishing entries are wrong; carries every fault at once
│   ├── DataError       no usable picture, no captions, a cache that cannot be read
│   ├── ModelError      the model folder is missing, incomplete or of another family
│   ├── CheckpointError a checkpoint is incomplete, damaged or belongs to another run
│   ├── PublishError    a destination refused: credentials, permission, name, verification
│   └── EngineFault     the engine refused or failed for a reason that repeats
└── Transient           the same call may succeed later: retry it
    ├── EngineDied      the engine process ended without an answer
    ├── DestinationDown a destination did not answer, or answered "later"
    └── SourceDown      the storage that holds the pictures did not answer, or answered "later"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WOULD_LOSE_RESULTS = "would_lose_results"
"""The code of the fault that a run's results would vanish with its machine."""


class FlowtunerError(Exception):
    """Base of everything Flowtuner raises on purpose; its text is meant for the user."""


class Terminal(FlowtunerError):  # noqa: N818  a property of errors, not one of them
    """Trying again changes nothing."""


class Transient(FlowtunerError):  # noqa: N818
    """The same call may succeed later."""


@dataclass(frozen=True)
class Fault:
    """One mistake in a configuration: what is wrong, where it came from, what is allowed, what to do."""

    option: str
    value: object
    origin: str
    problem: str
    allowed: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        parts = [f"{self.option}: {self.problem}"]
        if self.value is not None:
            parts.append(f"got {self.value!r}")
        if self.origin:
            parts.append(f"from {self.origin}")
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.suggestion:
            parts.append(self.suggestion)
        return "; ".join(parts)


class ConfigError(Terminal):
    """One or more faults in what the user asked for, reported together."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        noun = "mistake" if len(self.faults) == 1 else "mistakes"
        super().__init__(f"{len(self.faults)} {noun}:\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class DataError(Terminal):
    """The data set cannot be trained on."""


class ModelError(Terminal):
    """The model cannot be loaded."""


class CheckpointError(Terminal):
    """A checkpoint cannot be used."""


class PublishError(Terminal):
    """A destination refused the upload or what it holds does not verify."""


class EngineFault(Terminal):
    """The engine refused or failed for a reason that repeats."""


class EngineDied(Transient):
    """The engine process ended without an answer."""


class DestinationDown(Transient):
    """A destination did not answer, or asked to come back later."""


class SourceDown(Transient):
    """The storage that holds the pictures did not answer, or asked to come back later."""
