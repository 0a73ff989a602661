"""One task that keeps every live display of a node true.

- It listens to the node's notices and asks again for what changed, at most ``_PER_SECOND`` times a second; it ends with the last
  view.
- It never starts a node: one that was stopped, is locked or does not answer is said to be so, and the view goes on when it is
  back.
- It runs on the client's loop; nothing here waits on the kernel's main thread for longer than it takes to hand something over.

What a view shows is left to ``displays`` and the panels.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, Protocol

from labxchange.errors import LabxchangeError
from labxchange.node.client import Client, run, start
from labxchange.node.values import Notice

_PER_SECOND = 5
_IDLE_S = 2.0
_AGAIN_S = 1.0
_ANSWER_S = 10.0
_AWAY = ("node-not-running", "node-ended")
_GOES_ON = "This display goes on when it is back."

log = logging.getLogger("labxchange")


class View(Protocol):
    """Something that a watcher keeps true."""

    def concerned(self, notice: Notice) -> bool: ...
    async def refresh(self, client: Client) -> bool:
        """Ask the node and show it; True when it is over and needs no more."""
        ...

    def trouble(self, sentence: str) -> None:
        """The node cannot be asked; an empty sentence is never given."""
        ...


class Watcher:
    """Keeps every view of one node true, with one task on the client's loop."""

    def __init__(self, client: Client) -> None:
        self.client = Client(client.home, start=False)
        self._stale: dict[View, bool] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._calls: set[Future[None]] = set()

    def add(self, view: View) -> None:
        """From any thread but the loop's."""
        run(self.begin(view))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` on the loop, from any thread; returns at once. Its errors are its own to show."""
        call = start(work)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def begin(self, view: View) -> None:
        """As ``add``, on the loop."""
        self._stale[view] = True
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._watch())

    async def show(self, which: Callable[[View], bool]) -> None:
        """Ask for these views now, beside the watching; on the loop."""
        for view in [view for view in self._stale if which(view)]:
            await self._refresh(view)

    async def _watch(self) -> None:
        while self._stale:  # once more for a view that was added while the last one was left
            listening = asyncio.ensure_future(self._listen())
            try:
                await self._keep()
            finally:
                listening.cancel()
                await asyncio.wait([listening])
                await self.client.close()

    async def _keep(self) -> None:
        """Until there is no view left."""
        while self._stale:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _IDLE_S)
            # Nothing was told for a while: a notice may have been lost, a node gone.
            everything = not self._changed.is_set()
            self._changed.clear()
            for view in [view for view, stale in self._stale.items() if stale or everything]:
                await self._refresh(view)
            await asyncio.sleep(1 / _PER_SECOND)

    async def _refresh(self, view: View) -> None:
        if view in self._stale:
            self._stale[view] = False
        try:
            async with asyncio.timeout(_ANSWER_S):
                over = await view.refresh(self.client)
        except LabxchangeError as error:
            over = False
            view.trouble(f"{error.message} {_GOES_ON if error.code in _AWAY else error.hint}".strip())
        except TimeoutError:
            over = False
            view.trouble(f"The node does not answer. {_GOES_ON}")
        except Exception:  # a front end that is gone, a widget that was closed: nobody looks any more
            log.warning("a display ended", exc_info=True)
            over = True
        if over:
            self._stale.pop(view, None)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(LabxchangeError):
                async for notice in self.client.notices():
                    self._mark(lambda view, notice=notice: view.concerned(notice))  # type: ignore[misc]
            # The node ended, or never ran: each view finds out by asking, and again when it is back.
            self._mark(lambda view: True)
            await asyncio.sleep(_AGAIN_S)

    def _mark(self, which: Callable[[View], bool]) -> None:
        for view in [view for view in self._stale if which(view)]:
            self._stale[view] = True
            self._changed.set()


@cache
def watcher(client: Client) -> Watcher:
    """The one watcher for a client."""
    return Watcher(client)
