"""What is said of a run before it starts: memory by phase and part, disk, time; without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

GIB, MIB = 1 << 30, 1 << 20
Sizes = Mapping[str, int]
CAPTIONS, PICTURES, TRAINING, VALIDATING = "captions are encoded", "pictures are encoded", "training", "validating"
OUT_OF_MEMORY = "out of memory"
REHEARSED = (PICTURES, TRAINING)


@dataclass(frozen=True)
class Sizing:
    """All sizes are bytes; phases are what is held at the most in each of them."""

    device: str
    room: int
    process: int
    """What the engine's process holds without any model: nothing of a GPU."""

    parts: Sizes
    """What is held while a step is made."""

    phases: Sizes
    disk: Sizes
    steps: int
    remedies: tuple[str, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    """By a rehearsal: the peaks of `training` and `encoding`, `step_seconds`, `picture_seconds`, `caching_seconds`."""

    unmeasured: str = ""
    """Why there was no rehearsal."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads it back."""
        return cls(**{**value, "remedies": tuple(value["remedies"])})

    @property
    def peak(self) -> int:
        """What the run needs of the device: measured where it was, counted otherwise."""
        measured = [int(self.measured[name]) for name in ("training", "encoding") if name in self.measured]
        others = [size for name, size in self.phases.items() if name not in REHEARSED or not measured]
        return max([*others, *measured])

    @property
    def fits(self) -> bool:
        """Whether the device has what caching and training take, and gave it where it was asked."""
        # A validation that runs out of memory is told of and costs its pictures, not the run.
        needed = max(size for name, size in self.phases.items() if name != VALIDATING)
        return (
            not self.room or max(needed, int(self.measured.get("training", 0))) <= self.room
        ) and OUT_OF_MEMORY not in self.unmeasured.lower()

    @property
    def seconds(self) -> float | None:
        """How long caching pictures and training take, if a step was measured."""
        if "step_seconds" not in self.measured:
            return None
        return self.measured["step_seconds"] * self.steps + self.measured.get("caching_seconds", 0.0)

    def refuse(self) -> tuple[str, str]:
        """The problem and what to do about it, for a run that does not fit."""
        kind = "GPU" if self.device == "cuda" else "memory"
        phase = max((name for name in self.phases if name != VALIDATING), key=self.phases.__getitem__)
        problem = (
            f"will not fit: about {format_size(self.peak)} are needed ({phase}; "
            f"{', '.join(f'{format_size(size)} {name}' for name, size in self.parts.items() if size)}); "
            f"this machine's {kind} has {format_size(self.room)}."
        )
        return problem, f"These make room: {'; '.join(self.remedies)}." if self.remedies else "Take a larger machine."

    def describe(self) -> Iterator[str]:
        """Lines for people."""
        yield f"Memory of the {'GPU' if self.device == 'cuda' else 'machine'}: {self._verdict()}"
        yield from _table({"while " + name: size for name, size in self.phases.items()})
        yield "A step holds:"
        yield from _table(({"the process": self.process} if self.process else {}) | dict(self.parts))
        if "training" in self.measured:
            yield f"Measured with random weights: {format_size(int(self.measured['training']))} at the most."
        yield "Disk:"
        yield from _table(self.disk)
        yield self._duration()
        if not self.fits:
            yield self.refuse()[1]
        elif self.room and self.phases.get(VALIDATING, 0) > self.room:
            yield "Validation will not fit: its pictures will be missing. Lower validation_resolution."

    def _verdict(self) -> str:
        share = f" of {format_size(self.room)}" if self.room else ""
        return f"about {format_size(self.peak)}{share}: {'fits' if self.fits else 'will not fit'}"

    def _duration(self) -> str:
        if self.seconds is None:
            return f"Time: not measured ({self.unmeasured})." if self.unmeasured else "Time: not measured."
        caching = f", {format_time(self.measured['caching_seconds'])} to encode the pictures"
        return (
            f"Time: about {format_time(self.seconds)} without captions and validations "
            f"({self.steps} steps of {self.measured['step_seconds']:.3g} s{caching})"
        )


def format_size(size: int) -> str:
    """Bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{max(size / MIB, 0.1):.0f} MiB"


def format_time(seconds: float) -> str:
    """A duration for people, in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _table(rows: Sizes) -> Iterator[str]:
    shown = {name: size for name, size in rows.items() if size}
    width = max(map(len, shown), default=0)
    yield from (f"  {name:{width}}  {format_size(size):>9}" for name, size in shown.items())
