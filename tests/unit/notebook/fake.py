"""A node for displays that answers what a test says, and a transfer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from labxchange.errors import LabxchangeError
from labxchange.node.client import run
from labxchange.node.home import Home
from labxchange.node.values import Notice, ReceiptInfo, TransferInfo
from tests.unit.cli.fake import sample

RUNNING = sample(
    TransferInfo,
    transfer="ab12",
    direction="in",
    peer="Ada Silva",
    title="Trial",
    state="running",
    files=3,
    bytes=100,
    done_bytes=40,
)
DONE = msgspec.structs.replace(RUNNING, state="completed", done_bytes=100, done_files=3, receipt="yes")


class FakeClient:
    """Answers as told, remembers what it was asked, and lets a test give notices."""

    def __init__(self) -> None:
        self.home = Home()
        self.answers: dict[str, Any] = {
            "transfer_show": RUNNING,
            "receipt_show": sample(ReceiptInfo, verdict="match", receipt="e" * 64, root="f" * 64, sender="Ada Silva"),
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._notices: asyncio.Queue[Notice] = asyncio.Queue()

    async def call(self, verb: Callable[..., Any], **given: Any) -> Any:
        self.asked.append((verb.__name__, given))
        answer = self.answers[verb.__name__]
        if isinstance(answer, threading.Event):
            await asyncio.to_thread(answer.wait, 20)
            return RUNNING
        if isinstance(answer, LabxchangeError):
            raise answer
        return answer

    async def close(self) -> None:
        pass

    async def notices(self) -> AsyncIterator[Notice]:
        while True:
            yield await self._notices.get()

    def tell(self, kind: Any, subject: str = "", *, times: int = 1) -> None:
        async def put() -> None:
            for _ in range(times):
                self._notices.put_nowait(Notice(kind=kind, id=subject))

        run(put())

    def count(self, verb: str) -> int:
        return sum(name == verb for name, _ in self.asked)
