"""What panels have in common: widgets that stay in a cell's output, kept true by the node's watcher until they are closed.

A panel draws from what the node answered last, and says so when it cannot ask. Its text form names nobody. Every press is handed
to the client's loop, so the kernel never waits for the node.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any

from labxchange.errors import LabxchangeError
from labxchange.node.client import Client
from labxchange.node.values import Notice
from labxchange.notebook import cells, html
from labxchange.notebook.cells import dispose, living, toolkit
from labxchange.notebook.watching import watcher

log = logging.getLogger("labxchange")


class Panel(ABC):
    """A box of widgets over live state.

    Args:
        kinds: the kinds of notice after which it asks anew.
    """

    title = ""

    def __init__(self, client: Client, *kinds: str) -> None:
        self.widgets = toolkit()
        self.client = client
        self._kinds = {"node", *kinds}
        self._closed = self._troubled = False
        self.remark = self.widgets.HTML()
        self.box = self.widgets.VBox([])

    def start(self) -> None:
        """From now on it is kept true; the box has its children by then."""
        watcher(self.client).add(self)

    def close(self) -> None:
        """End it: the panel is no longer kept true, and goes from the page.

        Example:
            panel = lx.inbox().panel()
            panel.close()
        """
        self._closed = True
        dispose(self.box)

    @abstractmethod
    async def load(self, client: Client) -> None:
        """Ask the node and draw the answer."""

    def concerned(self, notice: Notice) -> bool:
        return notice.kind in self._kinds

    async def refresh(self, client: Client) -> bool:
        if not self._closed:
            await self.load(client)
            if self._troubled:
                self._troubled = False
                self.say("")
        return self._closed

    def trouble(self, sentence: str) -> None:
        self._troubled = True
        self.say(sentence, tone="warn")

    def say(self, sentence: str, *, tone: str = "good") -> None:
        """One sentence under the panel; empty: none."""
        self.remark.value = html.card(self.title, html.mark(sentence, tone)) if sentence else ""

    def ask(self, work: Awaitable[str | None]) -> None:
        """Let ``work`` talk to the node. What it returns is said, None leaves what was said; so is what went wrong."""

        async def answered() -> None:
            try:
                if (told := await work) is not None:
                    self.say(told)
            except LabxchangeError as error:
                self.say(f"{error.message} {error.hint}".strip(), tone="bad")
            except Exception:
                log.exception("a panel failed")
                self.say("This failed for a reason of its own; the log says more.", tone="bad")

        watcher(self.client).spawn(answered())

    def button(self, label: str, *, tip: str, icon: str = "", style: str = "") -> Any:
        return self.widgets.Button(description=label, tooltip=tip, icon=icon, button_style=style)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        cells.keep(self)
        return living(self.box, repr(self))

    def __repr__(self) -> str:
        return f"{self.title}: a panel, which a notebook draws"
