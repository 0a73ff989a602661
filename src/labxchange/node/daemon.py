"""The node's process: ``python -m labxchange.node.daemon`` with ``LABXCHANGE_HOME`` set. Started by ``starting``.

It serves the local API on the home's socket until it is asked to stop or gets SIGTERM or SIGINT, and then stops cleanly. What a
crash leaves behind - a socket file, a lock file - is taken over: the database's own lock decides who is the node.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from labxchange.errors import LabxchangeError
from labxchange.net.sockets import SocketNetwork
from labxchange.node.home import Home
from labxchange.node.local import application
from labxchange.node.node import Node

LISTEN_VARIABLE = "LABXCHANGE_LISTEN"
"""Numeric address to listen on; all of the machine's when it is not set."""

log = logging.getLogger("labxchange")


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the node decides when it stops."""

    def install_signal_handlers(self) -> None:
        return


async def serve(home: Home, *, host: str = "") -> None:
    """Run the node until it is told to stop.

    Raises:
        LabxchangeError: it cannot start.
    """
    node = Node(home, SocketNetwork(), host=host)
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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for noisy in ("quic", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    home = Home()
    try:
        asyncio.run(serve(home, host=os.environ.get(LISTEN_VARIABLE, "")))
    except LabxchangeError as error:
        log.error("%s (%s) %s", error.message, error.code, error.hint)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
