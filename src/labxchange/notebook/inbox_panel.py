"""The inbox as a panel: what is offered, a button to receive each, and the transfer that runs beside its offer.

A row stays the same widgets as long as its offer is listed; what changed in it is changed, and what goes is closed.
"""

from __future__ import annotations

from collections.abc import Callable

from labxchange.node.client import Client
from labxchange.node.values import InboxItem
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, html
from labxchange.notebook.cells import dispose
from labxchange.notebook.displays import TransferView
from labxchange.notebook.panels import Panel
from labxchange.notebook.text import amount, size, when
from labxchange.notebook.watching import watcher

_SHOWN = 50
_WIDE = "560px"
_BESIDE, _NESTED = "7px 2px 2px 2px", "0 0 8px 24px"
"""Margins of a button on the line of the title, and of a transfer below its offer."""
_OVER = ("verified", "completed")

_Key = tuple[str, str, int]
"""An offer's sender, share and version: an id counts together with its owner."""


class InboxPanel(Panel):
    """Offers, live, with a button to receive each; ``close()`` ends it.

    Example:
        lx.inbox().panel().close()
    """

    title = "Inbox"

    def __init__(self, client: Client) -> None:
        super().__init__(client, "inbox", "transfer")
        self._items: list[InboxItem] | None = None
        self._rows: dict[_Key, _Row] = {}
        self._head, self._more = self.widgets.HTML(), self.widgets.HTML()
        self._list = self.widgets.VBox([])
        self.box.children = [self._head, self._list, self._more, self.remark]
        self.start()

    async def load(self, client: Client) -> None:
        items = await client.call(Verbs.inbox_list)
        if items != self._items:
            self._draw(items)
            self._items = items

    def _draw(self, items: list[InboxItem]) -> None:
        self._head.value = html.card("Inbox", html.faint(amount(len(items), "offer") if items else "Nothing is offered."))
        more = len(items) - _SHOWN
        self._more.value = html.card("More", f"and {more:,} more: lx.inbox()") if more > 0 else ""
        shown = {_key(item): item for item in items[:_SHOWN]}
        gone = [self._rows.pop(key) for key in self._rows.keys() - shown.keys()]
        for key, item in shown.items():
            if key in self._rows:
                self._rows[key].update(item)
            else:
                self._rows[key] = _Row(self, item, receive=self._receive)
        boxes = tuple(self._rows[key].box for key in shown)
        if boxes != self._list.children:
            self._list.children = boxes
        for row in gone:
            row.close()

    def _receive(self, row: _Row) -> None:
        if not row.button.disabled:
            row.asked(True)
            self.ask(self._start(row))

    async def _start(self, row: _Row) -> str:
        try:
            info = await self.client.call(Verbs.receive, share=_name(row.item), sender=row.item.sender_key)
        except BaseException:
            row.asked(False)
            raise
        if self._rows.get(_key(row.item)) is not row:  # the offer went meanwhile; the transfer goes on
            return ""
        view = TransferView(self.client, info)
        row.show(view)
        await watcher(self.client).begin(view)
        return ""

    def close(self) -> None:
        super().close()
        for row in self._rows.values():
            row.close()


class _Row:
    """One offer, its button, and its transfer once it was received here."""

    def __init__(self, panel: Panel, item: InboxItem, *, receive: Callable[[_Row], None]) -> None:
        w = panel.widgets
        self.item = item
        self._told = w.HTML(layout=w.Layout(width=_WIDE))
        self.button = panel.button("Receive", tip="", icon="download")
        self.button.layout.margin = _BESIDE
        self.button.on_click(lambda _: receive(self))
        self._asked = False
        self._view: TransferView | None = None
        self.box = w.VBox([w.HBox([self._told, self.button], layout=w.Layout(align_items="flex-start"))])
        self.update(item)

    def update(self, item: InboxItem) -> None:
        """Show what is known now; a trait that is set to what it is sends nothing."""
        self.item = item
        self._told.value = _told(item)
        done = item.state in _OVER
        self.button.description, self.button.icon = ("Received", "check") if done else ("Receive", "download")
        self.button.tooltip = f"{self.button.description} {amount(item.files, 'file')}, {size(item.bytes)}"
        self.button.disabled = self._asked or item.revoked or bool(item.transfer) or item.sender_state != "verified"

    def asked(self, asked: bool) -> None:
        """Whether the node was asked to receive it, and has not answered."""
        self._asked = asked
        self.update(self.item)

    def show(self, view: TransferView) -> None:
        """The transfer, in the place of an earlier one."""
        if self._view is not None:
            self._view.close()
        self._view, self._asked = view, False  # the button stays off until the inbox says otherwise
        view.box.layout.margin = _NESTED
        self.box.children = (self.box.children[0], view.box)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
        dispose(self.box)


def _told(item: InboxItem) -> str:
    about = [f"version {item.version}", amount(item.files, "file"), size(item.bytes), f"until {when(item.not_after)}"]
    return html.card(
        "Offer",
        f"<strong>{html.text(item.title)}</strong> from {html.text(item.sender)}",
        html.faint(html.text(" · ".join(about))),
        html.text(f"Purpose: {item.purpose}") if item.purpose else "",
        html.text(f"“{item.note}”") if item.note else "",
        cards.withheld(item.withheld),
        html.mark(_state(item), _tone(item)),
    )


def _key(item: InboxItem) -> _Key:
    return (item.sender_key, item.share, item.version)


def _name(item: InboxItem) -> str:
    return f"{item.share}/{item.version}"


def _state(item: InboxItem) -> str:
    if item.revoked:
        return "revoked"
    if item.sender_state != "verified":
        return "compare the six words with them first"
    return item.state + (f" ({item.reason})" if item.reason else "")


def _tone(item: InboxItem) -> str:
    if item.revoked:
        return "idle"
    return "good" if item.state in _OVER else "warn" if item.sender_state != "verified" else "busy"
