"""What a person sees of an exception nobody expected: one line, and where the whole story was written."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import TracebackType

from flowtuner import __version__
from flowtuner.cli.output import tell


def report_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Writes the traceback to a file and tells where; Python itself then leaves with exit code 1."""
    story = "".join(traceback.format_exception(kind, error, trace))
    about = f"flowtuner {__version__}, Python {platform.python_version()}, {platform.platform()}\n{sys.argv}\n\n"
    summary = " ".join(str(error).split())[:200]
    tell(f"flowtuner: unexpected {kind.__name__}: {summary}. The full traceback is in {_write(about + story)}")


def _write(text: str) -> Path | str:
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    home = Path(os.environ.get("FLOWTUNER_HOME") or "~/.flowtuner").expanduser()
    for folder in (home / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return f"no file, because none could be written:\n{text}"
