"""The node's notices to its faces: who listens gets each one, a slow listener loses old ones and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from labxchange.node.values import Notice

_BACKLOG = 1000

Kind = Literal["contact", "share", "inbox", "transfer", "trail", "node"]


class Notices:
    """Publishes to any number of listeners; never waits for one."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Notice | None]] = set()

    def publish(self, kind: Kind, subject: str = "") -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(Notice(kind=kind, id=subject))

    def close(self) -> None:
        """The node stops: every listener's stream ends."""
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def listen(self) -> AsyncIterator[Notice]:
        queue: asyncio.Queue[Notice | None] = asyncio.Queue(_BACKLOG)
        self._listeners.add(queue)
        try:
            while (notice := await queue.get()) is not None:
                yield notice
        finally:
            self._listeners.discard(queue)
