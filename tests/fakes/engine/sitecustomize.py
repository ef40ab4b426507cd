"""Put on PYTHONPATH, this gives the engine process a session without torch; everything else of it is the real one."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.util import spec_from_file_location
from pathlib import Path

REPLACED = {"flowtuner.engine.session": "counting_session.py", "flowtuner.engine.ranks": "lone_ranks.py"}


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in REPLACED:
            return None
        return spec_from_file_location(name, Path(__file__).with_name(REPLACED[name]))


sys.meta_path.insert(0, _Finder())
