"""The node's process: ``python -m labxchange.node.daemon`` with ``LABXCHANGE_HOME`` set. Started by ``starting``.

It serves the local API on the home's socket until it is asked to stop or gets SIGTERM or SIGINT, and then stops cleanly. What a
crash leaves behind - a socket file, a lock file - is taken over: the database's own lock decides who is the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TextIO

import uvicorn

from labxchange.errors import LabxchangeError
from labxchange.net.sockets import SocketNetwork
from labxchange.node.home import Home
from labxchange.node.local import application
from labxchange.node.node import Node
from labxchange.transfer.lanes.process import worker_count

LISTEN_VARIABLE = "LABXCHANGE_LISTEN"
"""Numeric address to listen on; all of the machine's when it is not set."""

SWITCH_S = 0.0005
"""Threads that hash hand Python's interpreter lock on this often at least: who asks the node must not wait 5 ms for each step."""

LOG_MAX_BYTES = 5 << 20
"""A log file of this size becomes ``node.log.1``, in the place of an older one."""

log = logging.getLogger("labxchange")


class RotatingLog(logging.StreamHandler[TextIO]):
    """Writes to standard error; where that is the file ``path``, a full one makes room for a new one and is kept as ``.1``."""

    def __init__(self, path: Path, *, max_bytes: int = LOG_MAX_BYTES) -> None:
        super().__init__(sys.stderr)
        self._path = path
        self._max_bytes = max_bytes

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        with contextlib.suppress(OSError, ValueError):  # ValueError: standard error is no file
            self._rotate(self.stream.fileno())

    def _rotate(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if status.st_size < self._max_bytes or not os.path.samestat(status, os.lstat(self._path)):
            return
        os.rename(self._path, self._path.with_name(self._path.name + ".1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fresh = os.open(self._path, flags, 0o600)
        try:
            for target in {descriptor, *self._streams(status)}:
                os.dup2(fresh, target)
        finally:
            os.close(fresh)

    @staticmethod
    def _streams(status: os.stat_result) -> list[int]:
        """Standard output and error, where they are that file too: what a crash says must not be lost with the old one."""
        return [number for number in (1, 2) if os.path.samestat(status, os.fstat(number))]


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the node decides when it stops."""

    def install_signal_handlers(self) -> None:
        return


async def serve(home: Home, *, host: str = "") -> None:
    """Run the node until it is told to stop.

    Raises:
        LabxchangeError: it cannot start.
    """
    node = Node(home, SocketNetwork(), host=host, lane_workers=worker_count())
    try:
        await node.open()
        await _serve_local(home, node)
    finally:
        await node.close()
        log.info("stopped")


async def _serve_local(home: Home, node: Node) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    path = home.socket
    listener = _listener(path)
    config = uvicorn.Config(application(node, stop=stop.set), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = _Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await stop.wait()
    finally:
        node.core.notices.close()
        server.should_exit = True
        await task
        listener.close()
        path.unlink(missing_ok=True)


def _listener(path: Path) -> socket.socket:
    """The bound socket, for its user only; takes the place of one that a crash left behind."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    return listener


def main() -> int:
    """Entry of the process; exit code 1 when the node cannot start."""
    home = Home()
    sys.setswitchinterval(SWITCH_S)
    form = "%(asctime)s %(name)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[RotatingLog(home.log)])
    for noisy in ("quic", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        asyncio.run(serve(home, host=os.environ.get(LISTEN_VARIABLE, "")))
    except LabxchangeError as error:
        log.error("%s (%s) %s", error.message, error.code, error.hint)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
