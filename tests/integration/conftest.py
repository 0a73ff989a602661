"""Real nodes for the integration tests: each a process of its own, on loopback sockets, in homes that a test may lose."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labxchange.node.client import Client
from labxchange.node.home import Home


@contextlib.contextmanager
def homes(root: Path) -> Iterator[Path]:
    """A folder for homes, and an environment in which nodes listen on the loopback address only; no node outlives it."""
    with tempfile.TemporaryDirectory(prefix="lx-") as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        patch.setenv("LABXCHANGE_LISTEN", "127.0.0.1")
        yield root
        for lock in root.rglob("node.lock"):
            pid = int(json.loads(lock.read_text())["pid"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                gone(pid)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with homes(tmp_path) as made:
        yield made


class Person:
    """Somebody with a node of their own."""

    def __init__(self, place: Path, name: str) -> None:
        self.name = name
        self.home = Home(place / name)
        self.credential = place / f"{name}.credential"
        self.client = Client(self.home)

    @property
    def pid(self) -> int:
        """The process that runs the node now."""
        return int(json.loads((self.home.root / "node.lock").read_text())["pid"])

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        gone(pid)

    async def stop(self) -> None:
        """A clean stop, waited for."""
        pid = self.pid
        await self.client.stop_node()
        await self.client.close()
        gone(pid)


def gone(pid: int, *, timeout_s: float = 20.0) -> None:
    """Wait for the end of a process; our own child is reaped, that of a kernel stays a zombie until the kernel looks."""
    deadline = time.monotonic() + timeout_s
    while _runs(pid):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        assert time.monotonic() < deadline, f"process {pid} did not end"
        time.sleep(0.01)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _runs(pid: int) -> bool:
    """Any thread of it: the first can be a zombie while others still hold the sockets."""
    about = Path(f"/proc/{pid}")
    try:
        threads = [int(path.name) for path in (about / "task").iterdir()]
        return threads != [pid] or (about / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
