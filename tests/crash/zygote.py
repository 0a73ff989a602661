"""A process that has everything imported and forks nodes that can be killed: ``python -m tests.crash.zygote SOCKET``.

Each line on its standard input is the order for one node (``Order``); the node connects to the Unix socket, says its process id,
and then answers calls, one JSON line each. What it vouches for is told on the same socket at once, so it is there after the kill.
The waits for a peer that is gone are shortened, since on one machine a peer is back at once.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import signal
import socket
import struct
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import msgspec

from labxchange.errors import LabxchangeError
from labxchange.files.quarantine import sync_file_system
from labxchange.merkle import Frontier
from labxchange.net import link
from labxchange.node import peers, receiving
from labxchange.node.node import Node
from labxchange.store import transfers
from labxchange.store.database import Database
from labxchange.transfer import receive, streams
from tests.crash import traps
from tests.support.nodes import make_node, start

JOURNAL_BYTES = 1 << 20
FETCH_BYTES = 1 << 18


class Order(msgspec.Struct, kw_only=True):
    """One node: its home, its address, where the bytes it sends are counted, and the trap that is armed before it starts."""

    folder: str
    name: str
    host: str
    counter: str
    trap: tuple[str, int, bool] | None = None


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:  # what an open database imports is imported before the fork
        Database(Path(folder) / "warm.db").close()
    sync_file_system(os.open("/tmp", os.O_RDONLY))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order)
        if os.fork() == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                asyncio.run(_Host(order, sys.argv[1]).run())
            except BaseException:
                traceback.print_exc()
            os._exit(0)


class _Host:
    def __init__(self, order: Order, path: str) -> None:
        self._order = order
        self._trap = traps.Trap()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._tell({"pid": os.getpid(), "name": order.name})
        with open(order.counter, "r+b") as file:
            self._counter = mmap.mmap(file.fileno(), 8)

    def _tell(self, what: dict[str, Any]) -> None:
        self._socket.sendall(msgspec.json.encode(what) + b"\n")

    def _count(self, _transfer: str, size: int) -> None:
        struct.pack_into("<Q", self._counter, 0, struct.unpack_from("<Q", self._counter)[0] + size)

    async def run(self) -> None:
        for module, name, value in (
            (link, "PING_INTERVAL_S", 0.3),
            (link, "SILENCE_MAX_S", 1.5),
            (receive, "JOURNAL_BYTES", JOURNAL_BYTES),
            (streams, "FETCH_BYTES", FETCH_BYTES),
            (peers, "DIAL_TIMEOUT_S", 2.0),
            (peers, "RETRY_IDLE_S", 0.4),
            *((module, "RETRY_FIRST_S", 0.1) for module in (peers, receiving)),
            *((module, "RETRY_LAST_S", 0.4) for module in (peers, receiving)),
        ):
            setattr(module, name, value)
        traps.install(self._trap, self._tell, count_sent=self._count)
        if self._order.trap is not None:
            kind, count, after = self._order.trap
            self._trap.set(kind, count, after=after)
        node = make_node(Path(self._order.folder), self._order.name, host=self._order.host)
        await start(node, credential=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _explain)
        reader, _ = await asyncio.open_unix_connection(sock=self._socket.dup())
        self._socket.setblocking(True)
        self._tell({"ready": True} | self._held(node))
        while line := await reader.readline():
            asked = msgspec.json.decode(line)
            if asked["verb"] == "trap":
                self._trap.set(asked["kind"], asked["count"], after=asked["after"])
                self._tell({"answer": None})
                continue
            try:
                result = await getattr(node, asked.pop("verb"))(**asked)
                self._tell({"answer": msgspec.to_builtins(result)})
            except LabxchangeError as error:
                self._tell({"error": error.code, "message": error.message})
        await node.close()

    def _held(self, node: Node) -> dict[str, Any]:
        """What the disk holds after a start: the root of the trail at each size, and the journals."""
        trail = node.core.trail
        assert trail is not None
        with node.core.database.begin() as tx:
            fetch = trail.nodes(tx)
            roots = {size: Frontier.load(size, fetch).root().hex() for size in range(1, trail.size + 1)}
            rows = transfers.incoming(tx)
            arrived = {row.transfer: transfers.arrived_chunks(tx, row.transfer) for row in rows}
            released = {row.transfer: transfers.released_files(tx, row.transfer) for row in rows}
        return {"roots": roots, "arrived": arrived, "released": released, "done": {row.transfer: row.done_bytes for row in rows}}


def _explain() -> None:
    """What the node waits for, when a test waits in vain."""
    for task in asyncio.all_tasks():
        task.print_stack()
    sys.stderr.flush()


if __name__ == "__main__":
    main()
