"""The other processes of a run on several GPUs: started and ended by the first, which passes its orders on to them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1
END_GRACE_S = 10.0
SHARED = frozenset({"prepare", "train", "save_checkpoint", "close"})
"""The orders that need everybody; all others are the first process's alone."""
GATHERING = frozenset({"validate", "save_release"})
"""Those that need everybody too where each holds a share of the weights only."""


class Crew:
    """The processes of rank 1 and above; empty for a run in one process."""

    def __init__(
        self, spec_path: Path, world: int, on_loss: Callable[[int, int], None], shared: frozenset[str] = SHARED
    ) -> None:
        self._on_loss = on_loss
        self.shared = shared
        self._is_leaving = threading.Event()
        self._peers: list[subprocess.Popen[bytes]] = []
        self.is_whole = True
        if world == 1:
            return
        os.environ |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(_free_port())}
        for rank in range(1, world):
            command = [sys.executable, "-m", "flowtuner.engine.peer", str(spec_path), str(rank), str(world)]
            self._peers.append(subprocess.Popen([*command, str(os.getpid())], stdin=subprocess.PIPE))
        for rank, peer in enumerate(self._peers, 1):
            threading.Thread(target=self._watch, args=(rank, peer), name=f"peer {rank}", daemon=True).start()

    def tell(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Passes an order on, if it needs everybody."""
        if name in self.shared:
            for peer in self._peers:
                self._write(peer, {"name": name, "arguments": dict(arguments)})

    def dismiss(self) -> None:
        """Ends all: those that do not leave when nobody gives orders any more are killed."""
        self._is_leaving.set()
        for peer in self._peers:
            assert peer.stdin is not None
            with contextlib.suppress(OSError):
                peer.stdin.close()
        for peer in self._peers:
            try:
                peer.wait(END_GRACE_S)
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait()

    def abandon(self) -> None:
        """Kills all: after a failure they may wait for ever for a step that will not come."""
        self._is_leaving.set()
        self.is_whole = not self._peers
        for peer in self._peers:
            peer.kill()
            peer.wait()
        self._peers.clear()

    def _watch(self, rank: int, peer: subprocess.Popen[bytes]) -> None:
        code = peer.wait()
        if not self._is_leaving.is_set():
            self._on_loss(rank, code)

    def _write(self, peer: subprocess.Popen[bytes], order: dict[str, Any]) -> None:
        assert peer.stdin is not None
        with contextlib.suppress(OSError):  # one that died is noticed by who watches it
            peer.stdin.write(json.dumps(order).encode() + b"\n")
            peer.stdin.flush()


def die_with(parent_pid: int, number: signal.Signals) -> None:
    """Has the kernel send a signal when the parent ends; leaves at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent_pid:
        sys.exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
