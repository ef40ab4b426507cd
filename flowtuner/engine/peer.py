"""A process of rank 1 or above: trains its share, obeys the first process, writes and draws nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from flowtuner import errors
from flowtuner.engine.crew import die_with
from flowtuner.engine.run import DATA_KEYS_VARIABLE, RunSpec


def main(spec_path: Path, rank: int, world: int, parent_pid: int) -> int:
    """Obeys orders from its standard input until that ends."""
    # Stopping is the first process's decision: it saves, and everybody is needed for that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent_pid, signal.SIGKILL)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s rank {rank} %(levelname)s %(message)s")
    spec = RunSpec.load(spec_path, os.environ)
    os.environ.pop(DATA_KEYS_VARIABLE, None)

    from flowtuner.engine.ranks import join, part_ways
    from flowtuner.engine.session import Session

    session = Session(spec, _silent, threading.Event(), join(rank, world))
    for line in sys.stdin:
        order = json.loads(line)
        try:
            getattr(session, order["name"])(**order["arguments"])
        except errors.FlowtunerError:
            # The first process met the same and says so; if not, leaving here is what tells it.
            traceback.print_exc()
            return 1
    part_ways()
    return 0


def _silent(type: str, data: dict[str, Any]) -> None:
    """What a peer notices, the first process notices too."""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
