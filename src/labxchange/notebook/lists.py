"""The lists that the Python API returns: each prints as a table, shows as one in a notebook, and gives a DataFrame.

A list is what the node answered at one moment, which its table says; ``panel()``, where there is one, is the list that keeps
itself true.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from labxchange import times
from labxchange.node.client import Client
from labxchange.node.values import ContactInfo, EntryInfo, InboxItem, ShareInfo, TransferInfo
from labxchange.notebook import html
from labxchange.notebook.handles import Transfer
from labxchange.notebook.share import Share
from labxchange.notebook.text import amount, second, size, table, when

if TYPE_CHECKING:
    from pandas import DataFrame

    from labxchange.notebook.inbox_panel import InboxPanel
    from labxchange.notebook.share_form import ShareForm
    from labxchange.notebook.trail_panel import TrailPanel

T = TypeVar("T")
Row = tuple[object, ...]
INBOX_HEADS = ("title", "version", "from", "state", "files", "size", "until")
TRAIL_HEADS = ("seq", "when", "event", "result", "who", "with")


class Listed(Sequence[T], Generic[T]):
    """A list that prints as a table, of what the node answered at one moment: ``list[0]``, ``len(list)``, ``for one in list``.

    Args:
        values: what ``to_frame`` makes its rows of.
    """

    def __init__(
        self, items: Sequence[T], heads: Sequence[str], rows: Sequence[Row], *, empty: str, values: Sequence[msgspec.Struct]
    ) -> None:
        self._items, self._values = list(items), values
        self._heads, self._rows, self._empty = heads, rows, empty
        self._asked_ms = times.now_ms()

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __repr__(self) -> str:
        return table(self._heads, self._rows, empty=self._empty)

    def _repr_html_(self) -> str:
        caption = f"{amount(len(self._items), 'row')}, as of {second(self._asked_ms)}"
        return html.table(self._heads, self._rows, caption=caption, empty=f"{self._empty.capitalize()}.")

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame of the values behind the table: a row each, numbers as numbers, moments as UTC timestamps.

        Example:
            lx.audit().to_frame()[["seq", "utc", "event"]].head()
        """
        from labxchange.notebook.frames import frame

        return frame(self._values)


class Contacts(Listed[ContactInfo]):
    """The people you know, as ``ContactInfo``.

    Example:
        [one.name for one in lx.contacts() if one.state == "verified"]
    """

    def __init__(self, found: Sequence[ContactInfo]) -> None:
        heads = ("name", "organisation", "state", "connected", "alert")
        rows = [(item.name, item.organisation, item.state, "yes" if item.connected else "no", item.alert) for item in found]
        super().__init__(found, heads, rows, empty="no contacts yet", values=found)


class Shares(Listed[Share]):
    """Your shares, each version as a ``Share``.

    Example:
        lx.shares()[-1].status.state
    """

    def __init__(self, client: Client, found: Sequence[ShareInfo]) -> None:
        heads = ("title", "version", "state", "files", "size", "recipients")
        handles = [Share(client, item) for item in found]
        super().__init__(handles, heads, [share_row(item) for item in found], empty="no shares yet", values=found)
        self._client = client

    def panel(self, folder: str = ".") -> ShareForm:
        """A form to share with: it says in plain words what will happen, and nothing is read or signed before you press its
        button.

        Args:
            folder: whose files it offers to share.

        Raises:
            UnavailableError: ``widgets-missing``: ipywidgets is not installed.

        Example:
            form = lx.shares().panel("results")
            form.close()
        """
        from labxchange.notebook.share_form import ShareForm

        return ShareForm(self._client, folder=folder)


class Inbox(Listed[InboxItem]):
    """What others offer you, as ``InboxItem``.

    Example:
        [(one.title, one.files, one.bytes) for one in lx.inbox()]
    """

    def __init__(self, client: Client, found: Sequence[InboxItem]) -> None:
        super().__init__(found, INBOX_HEADS, [inbox_row(item) for item in found], empty="nothing is offered", values=found)
        self._client = client

    def panel(self) -> InboxPanel:
        """The inbox, live, with a button to receive each.

        Raises:
            UnavailableError: ``widgets-missing``: ipywidgets is not installed.

        Example:
            panel = lx.inbox().panel()
            panel.close()
        """
        from labxchange.notebook.inbox_panel import InboxPanel

        return InboxPanel(self._client)


class Transfers(Listed[Transfer]):
    """Transfers of both directions, oldest first, each as a ``Transfer``.

    Example:
        [one for one in lx.transfers() if one.status.direction == "in"]
    """

    def __init__(self, client: Client, found: Sequence[TransferInfo]) -> None:
        heads = ("title", "direction", "with", "state", "arrived")
        rows = [(one.title, one.direction, one.peer, one.state, f"{size(one.done_bytes)} of {size(one.bytes)}") for one in found]
        super().__init__([Transfer(client, item) for item in found], heads, rows, empty="no transfers yet", values=found)


class Trail(Listed[EntryInfo]):
    """Entries of the audit trail, newest first, as ``EntryInfo``.

    Example:
        [one.seq for one in lx.audit(event="share")]
    """

    def __init__(self, client: Client, found: Sequence[EntryInfo], *, event: str, about: str, limit: int) -> None:
        super().__init__(found, TRAIL_HEADS, [trail_row(item) for item in found], empty="no entries", values=found)
        self._client, self._event, self._about, self._limit = client, event, about, limit

    def panel(self) -> TrailPanel:
        """The trail with a filter, and a button that writes all of it to a file. Looking is an entry of the trail itself, so it
        looks again only when you ask it to.

        Raises:
            UnavailableError: ``widgets-missing``: ipywidgets is not installed.

        Example:
            panel = lx.audit(event="share").panel()
            panel.close()
        """
        from labxchange.notebook.trail_panel import TrailPanel

        return TrailPanel(self._client, event=self._event, about=self._about, limit=self._limit)


def share_row(item: ShareInfo) -> Row:
    recipients = ", ".join(f"{one.name}: {one.state}" for one in item.recipients)
    return (item.title, item.version, item.state, item.files, size(item.bytes), recipients)


def inbox_row(item: InboxItem) -> Row:
    return (item.title, item.version, item.sender, item.state, item.files, size(item.bytes), when(item.not_after))


def trail_row(item: EntryInfo) -> Row:
    who, other = item.fields.get("person", ""), item.fields.get("counterparty_name", "")
    return (item.seq, when(item.utc), item.event, item.result, who, other)
