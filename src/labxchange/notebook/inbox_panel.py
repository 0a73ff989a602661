"""The inbox as a panel: what is offered, a button to receive each, and the transfer that runs beside its offer."""

from __future__ import annotations

from typing import Any

from labxchange.node.client import Client
from labxchange.node.values import InboxItem
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, html
from labxchange.notebook.displays import TransferView
from labxchange.notebook.panels import Panel
from labxchange.notebook.text import amount, size, when
from labxchange.notebook.watching import watcher

_SHOWN = 50
_WIDE = "560px"
_OVER = ("verified", "completed")


class InboxPanel(Panel):
    """Offers, live."""

    title = "Inbox"

    def __init__(self, client: Client) -> None:
        super().__init__(client, "inbox", "transfer")
        self._items: list[InboxItem] = []
        self._views: dict[str, TransferView] = {}
        self._rows = self.widgets.VBox([])
        self.box.children = [self._rows, self.remark]
        self.start()

    async def load(self, client: Client) -> None:
        items = await client.call(Verbs.inbox_list)
        if items != self._items or not self._rows.children:
            self._items = items
            self._draw()

    def _draw(self) -> None:
        head = html.faint(html.text(f"{amount(len(self._items), 'offer')}" if self._items else "Nothing is offered."))
        rows = [self.widgets.HTML(html.card("Inbox", head))]
        rows += [self._row(item) for item in self._items[:_SHOWN]]
        if len(self._items) > _SHOWN:
            rows.append(self.widgets.HTML(html.card("More", html.text(f"and {len(self._items) - _SHOWN:,} more: lx.inbox()"))))
        self._rows.children = rows

    def _row(self, item: InboxItem) -> Any:
        about = [f"version {item.version}", amount(item.files, "file"), size(item.bytes), f"until {when(item.not_after)}"]
        told = self.widgets.HTML(
            html.card(
                "Offer",
                f"<strong>{html.text(item.title)}</strong> from {html.text(item.sender)}",
                html.faint(html.text(" · ".join(about))),
                html.text(f"Purpose: {item.purpose}") if item.purpose else "",
                html.text(f"“{item.note}”") if item.note else "",
                cards.withheld(item.withheld),
                html.mark(_state(item), _tone(item)),
            ),
            layout=self.widgets.Layout(width=_WIDE),
        )
        button = self.button("Receive", tip=f"Receive {amount(item.files, 'file')}, {size(item.bytes)}", icon="download")
        button.disabled = item.revoked or bool(item.transfer) or item.sender_state != "verified"
        button.on_click(lambda _: self._receive(item, button))
        view = self._views.get(_name(item))
        parts = [self.widgets.HBox([told, button], layout=self.widgets.Layout(align_items="center"))]
        return self.widgets.VBox(parts + ([view.box] if view else []))

    def _receive(self, item: InboxItem, button: Any) -> None:
        button.disabled = True
        self.ask(self._start(item, button))

    async def _start(self, item: InboxItem, button: Any) -> str:
        try:
            info = await self.client.call(Verbs.receive, share=_name(item), sender=item.sender_key)
        except BaseException:
            button.disabled = False
            raise
        view = self._views[_name(item)] = TransferView(self.client, info)
        await watcher(self.client).begin(view)
        self._draw()
        return ""


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
