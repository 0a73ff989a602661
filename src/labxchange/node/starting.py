"""Starting the node's process: once, whoever asks first, detached from who asked.

A lock file makes two faces that start it at the same moment get one node; the lock is the kernel's, so a crash leaves nothing
behind. The process gets its own session, so it outlives the terminal, the kernel or the server that started it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from labxchange.errors import UnavailableError
from labxchange.node.home import HOME_VARIABLE, Home
from labxchange.settings import NUMPY_ENVIRONMENT

_START_TIMEOUT_S = 20.0
_CHECKED_BYTES_PER_SECOND = 20 << 20
_POLL_S = 0.02
_started: list[subprocess.Popen[bytes]] = []
"""Nodes that this process started: kept, so that one that ended is reaped at the next start."""


def answers(home: Home) -> bool:
    """True when a node listens on the home's socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(home.socket))
        except OSError:
            return False
        return True


async def ensure_running(home: Home) -> None:
    """Start the node unless it runs; returns when it answers.

    Raises:
        UnavailableError: ``node-start-failed``, with the end of the log as the hint.
    """
    if not answers(home):
        await asyncio.to_thread(start, home)


def start(home: Home) -> None:
    """Start the node's process and wait until it answers; raises as ``ensure_running``."""
    home.create()
    lock = os.open(home.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers(home):
            return
        _started[:] = [process for process in _started if process.poll() is None]
        process = _spawn(home)
        _started.append(process)
        deadline = time.monotonic() + _patience(home)
        while time.monotonic() < deadline:
            if answers(home):
                return
            if process.poll() is not None:
                break
            time.sleep(_POLL_S)
        raise UnavailableError("node-start-failed", "The node did not start.", hint=_why(home.log))
    finally:
        os.close(lock)


def _patience(home: Home) -> float:
    """Seconds that a start may take: the node reads its whole database first, to see that it is sound."""
    try:
        size = home.database.stat().st_size
    except OSError:
        size = 0
    return _START_TIMEOUT_S + size / _CHECKED_BYTES_PER_SECOND


def _spawn(home: Home) -> subprocess.Popen[bytes]:
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "labxchange.node.daemon"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=NUMPY_ENVIRONMENT | os.environ | {HOME_VARIABLE: str(home.root)},
            start_new_session=True,
        )
    finally:
        os.close(log)


def _why(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:500] if lines else "`labxchange node logs` may say why."
