"""Runs a run again from its capsule and compares what comes out, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtuner import durable
from flowtuner.cli.arguments import Source
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell
from flowtuner.cli.training import run_training
from flowtuner.engine.capsule import Capsule, DataSet, find_differences, read_capsule, summarize
from flowtuner.errors import CheckpointError, ConfigError, Fault
from flowtuner.options import LoadedConfig
from flowtuner.options.redaction import HIDDEN

DATASETS = "datasets.json"
QUIET = {"publishing_config": None, "push_to_hub": False, "webhook_config": None, "report_to": "none"}


@dataclass(frozen=True)
class Verdict:
    """Which of the final weights have the bytes they had."""

    same: tuple[str, ...]
    other: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether all of them do."""
        return bool(self.same) and not self.other


def reproduce(run: Path, target: Path, flags: tuple[str, ...], *, as_json: bool) -> int:
    """Trains again what a run's capsule describes, and says whether the same weights come out."""
    old = read_capsule(run)
    if not old.release:
        raise CheckpointError(f"{run} never came to its end: there are no final weights to compare with.")
    if target.exists() and any(target.iterdir()):
        raise ConfigError([Fault("output_dir", str(target), "", "it must be empty", suggestion="name another one")])
    source = Source(flags=flags, values=_values(old, target))
    loaded = source.load()
    _refuse_hidden(loaded)
    _refuse_other_data(old, loaded)
    code = run_training(source, as_json=as_json)
    if code != Exit.OK:
        return code
    new = read_capsule(target)
    return _report(old, new, compare(old, new))


def compare(old: Capsule, new: Capsule) -> Verdict:
    """Holds the final weights of two runs against each other."""
    names = sorted({*old.release, *new.release})
    same = tuple(name for name in names if old.release.get(name) == new.release.get(name))
    return Verdict(same, tuple(name for name in names if name not in same))


def _values(old: Capsule, target: Path) -> Mapping[str, Any]:
    datasets = target.with_name(f"{target.name}-{DATASETS}")
    durable.write_json(datasets, list(old.datasets))
    asked = {"seed": old.seed, "max_train_steps": old.steps, "num_train_epochs": 0, "torch_num_threads": old.threads}
    places = {"output_dir": str(target), "data_backend_config": str(datasets)}
    return {**old.options, **asked, **places, **QUIET}


def _refuse_hidden(loaded: LoadedConfig) -> None:
    found = [name for name, value in loaded.config.model_dump(mode="json").items() if value == HIDDEN]
    faults = [Fault(name, None, "", "a capsule keeps no secrets", suggestion=f"give it: --{name}=…") for name in found]
    if faults:
        raise ConfigError(faults)


def _refuse_other_data(old: Capsule, loaded: LoadedConfig) -> None:
    from flowtuner.engine.cache.places import index_root
    from flowtuner.engine.data.scan import scan_datasets

    scan = scan_datasets(loaded.datasets, loaded.config, index_dir=index_root(loaded.config), report=_unheard)
    changed = list(_find_other_data(old.data, summarize(scan)))
    if changed:
        raise ConfigError([Fault("data_backend_config", None, "", problem) for problem in changed])


def _find_other_data(old: Mapping[str, DataSet], new: Mapping[str, DataSet]) -> Iterator[str]:
    for name, before in old.items():
        now = new.get(name)
        if now is None:
            yield f"the data set {name} is not there any more"
        elif now.samples != before.samples:
            yield f"the data set {name} held {before.samples} samples, now {now.samples}"
        elif now.digest != before.digest:
            yield f"the data set {name} has other pictures or captions than it had"


def _report(old: Capsule, new: Capsule, verdict: Verdict) -> int:
    for difference in find_differences(old, new):
        tell(f"not as it was: {difference}")
    for role, before in old.model.items():
        if new.model.get(role) != before:
            tell(f"not as it was: the weights of the model ({role})")
    if verdict.is_same:
        tell(f"reproduced: {len(verdict.same)} of {len(verdict.same)} files of weights have the same bytes")
        return Exit.OK
    for name in verdict.other:
        tell(f"other bytes: {name}")
    tell("not reproduced. On a GPU, bytes may differ although nothing else does.")
    return Exit.FAILED


def _unheard(done: int, total: int) -> None:
    """The run itself tells how far it has looked."""
