"""The levels of users and what each may do; `*` at the end of a name stands for all that begin so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

EVERYTHING = "*"
PERMISSIONS = {
    "job.view.own": "see one's own jobs",
    "job.view.all": "see everybody's jobs",
    "job.submit": "start a job",
    "job.cancel.own": "stop and steer one's own jobs",
    "job.cancel.all": "stop and steer everybody's jobs",
    "job.delete.own": "delete one's own jobs",
    "job.delete.all": "delete everybody's jobs",
    "job.priority.high": "queue a job before others",
    "config.view": "read configurations",
    "config.create": "create configurations",
    "config.edit.own": "change configurations",
    "config.delete.own": "delete configurations",
    "dataset.view": "see the data sets",
    "dataset.upload": "create folders and upload pictures",
    "queue.view": "see the queue and one's own place in it",
    "queue.view.all": "see the whole queue",
    "queue.cancel.own": "take one's own jobs out of the queue",
    "queue.approve": "approve jobs that wait for it",
    "queue.manage": "set the queue's limits and priorities",
    "quota.view": "see quotas",
    "system.view": "see the machine's load and devices",
    "system.shutdown": "shut the server down",
    "api.access": "use the API with a key",
    "api.keys.own": "create and delete one's own keys",
    "admin.users": "manage users and registration",
    "admin.levels": "see the levels and permissions",
    "admin.workers": "manage remote workers",
    "admin.approve": "approve what needs a lead",
    "admin.audit": "read the audit log",
}


@dataclass(frozen=True)
class Level:
    """A named set of permissions; the priority is where its jobs begin in the queue."""

    id: int
    name: str
    priority: int
    permissions: frozenset[str]
    description: str


_VIEWER = frozenset({"job.view.own", "config.view", "dataset.view", "system.view"})
_RESEARCHER = _VIEWER | {
    "job.submit",
    "job.cancel.own",
    "job.delete.own",
    "config.create",
    "config.edit.own",
    "config.delete.own",
    "dataset.upload",
    "queue.view",
    "queue.cancel.own",
    "api.access",
    "api.keys.own",
}
_LEAD = _RESEARCHER | {
    "job.view.all",
    "job.priority.high",
    "queue.view.all",
    "queue.approve",
    "quota.view",
    "admin.approve",
    "admin.audit",
}

LEVELS = {
    level.name: level
    for level in (
        Level(1, "viewer", 0, _VIEWER, "looks, changes nothing"),
        Level(2, "researcher", 10, _RESEARCHER, "trains"),
        Level(3, "lead", 50, _LEAD, "sees all jobs and approves"),
        Level(4, "admin", 100, frozenset({EVERYTHING}), "may do everything"),
    )
}


def permissions_of(level_names: Iterable[str], is_admin: bool = False) -> frozenset[str]:
    """What a user of these levels may do."""
    if is_admin:
        return frozenset({EVERYTHING})
    granted: frozenset[str] = frozenset()
    for name in level_names:
        if name in LEVELS:
            granted |= LEVELS[name].permissions
    return granted


def allows(granted: Iterable[str], wanted: str) -> bool:
    """Whether one of the granted names, which may end with `*`, is or covers the wanted one."""
    return any(fnmatchcase(wanted, name) for name in granted)
