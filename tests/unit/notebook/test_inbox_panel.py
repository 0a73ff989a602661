"""The inbox as a panel: rows that stay, change and go, and nothing left open behind them."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from labxchange.errors import InputError
from labxchange.node.values import InboxItem
from labxchange.notebook import watching
from labxchange.notebook.inbox_panel import InboxPanel
from tests.support.displays import open_widgets, until
from tests.unit.cli.fake import sample
from tests.unit.notebook.fake import DONE, RUNNING, FakeClient

ITEM = sample(
    InboxItem, share="cd", version=2, title="Trial", sender="Ada", sender_key="k", sender_state="verified", state="available"
)


def offers(count: int) -> list[InboxItem]:
    return [msgspec.structs.replace(ITEM, share=f"{number:02}", title=f"Trial {number}") for number in range(count)]


def panel_of(client: FakeClient, items: list[InboxItem]) -> InboxPanel:
    client.answers["inbox_list"] = items
    panel = InboxPanel(client)  # type: ignore[arg-type]
    until(lambda: panel._items == items, what="the offers")
    return panel


def shows(panel: InboxPanel, client: FakeClient, items: list[InboxItem]) -> None:
    client.answers["inbox_list"] = items
    client.tell("inbox")
    until(lambda: panel._items == items, what="the new offers")


def buttons(panel: InboxPanel) -> list[Any]:
    return [row.children[0].children[1] for row in panel._list.children]


def test_it_receives_what_is_pressed(client: FakeClient) -> None:
    client.answers["receive"] = RUNNING
    panel = panel_of(client, [ITEM, msgspec.structs.replace(ITEM, share="ef", sender_state="unverified")])
    assert [button.disabled for button in buttons(panel)] == [False, True]
    buttons(panel)[0].click()
    buttons(panel)[0].click()
    until(lambda: len(panel._list.children[0].children) == 2, what="the transfer beside its offer")
    assert [given for name, given in client.asked if name == "receive"] == [{"share": "cd/2", "sender": "k"}]
    assert panel._repr_mimebundle_()["text/plain"] == "Inbox: a panel, which a notebook draws"
    panel.close()


def test_a_refused_press_can_be_made_again(client: FakeClient) -> None:
    client.answers["receive"] = InputError("destination-unusable", "The folder is full.")
    panel = panel_of(client, [ITEM])
    buttons(panel)[0].click()
    until(lambda: "The folder is full." in panel.remark.value, what="the refusal")
    assert not buttons(panel)[0].disabled
    panel.close()


def test_a_press_that_waits_is_not_made_twice(client: FakeClient) -> None:
    """Also when the inbox changes before the node has answered."""
    client.answers["receive"] = hold = threading.Event()
    panel = panel_of(client, [ITEM])
    buttons(panel)[0].click()
    shows(panel, client, [msgspec.structs.replace(ITEM, note="new"), *offers(1)])
    assert buttons(panel)[0].disabled
    hold.set()
    until(lambda: len(panel._list.children[0].children) == 2, what="the transfer")
    panel.close()


def test_two_senders_may_offer_one_id(client: FakeClient) -> None:
    client.answers["receive"] = RUNNING
    panel = panel_of(client, [ITEM, msgspec.structs.replace(ITEM, sender="Eve", sender_key="e")])
    buttons(panel)[1].click()
    until(lambda: len(panel._list.children[1].children) == 2, what="the transfer beside its offer")
    assert len(panel._list.children[0].children) == 1
    panel.close()


def test_what_changed_is_changed_and_what_goes_is_closed(client: FakeClient) -> None:
    before = open_widgets()
    panel = panel_of(client, offers(3))
    rows, held = panel._list.children, open_widgets()
    each = len(held - before)
    for number in range(20):
        changed = [msgspec.structs.replace(item, note=f"{number}") for item in offers(3)]
        shows(panel, client, changed)
        assert panel._list.children == rows, "the same widgets"
        assert f"“{number}”" in rows[0].children[0].children[0].value
    assert open_widgets() == held
    shows(panel, client, list(reversed(offers(3))))
    assert panel._list.children == rows[::-1], "and they follow the order"
    shows(panel, client, offers(1))
    assert len(open_widgets()) < len(held), "rows that went are closed"
    shows(panel, client, offers(3))
    assert len(open_widgets() - before) == each
    panel.close()
    until(lambda: open_widgets() == before, what="everything to be closed")


def test_a_transfer_goes_with_its_offer(client: FakeClient) -> None:
    before = open_widgets()
    client.answers["receive"] = RUNNING
    panel = panel_of(client, [ITEM])
    buttons(panel)[0].click()
    until(lambda: len(panel._list.children[0].children) == 2, what="the transfer")
    shows(panel, client, [])
    assert "Nothing is offered." in panel._head.value
    until(lambda: not [view for view in watching.watcher(client)._stale if view is not panel], what="its view to end")
    panel.close()
    until(lambda: open_widgets() == before, what="everything to be closed")


def test_more_than_are_shown_are_counted(client: FakeClient) -> None:
    panel = panel_of(client, offers(53))
    assert len(panel._list.children) == 50
    assert "3 more" in panel._more.value
    shows(panel, client, offers(2))
    assert not panel._more.value
    panel.close()


@pytest.mark.parametrize("over", [False, True], ids=["running", "over"])
def test_a_closed_panel_asks_no_more(client: FakeClient, over: bool) -> None:
    client.answers |= {"receive": RUNNING} | ({"transfer_show": DONE} if over else {})
    panel = panel_of(client, [ITEM])
    buttons(panel)[0].click()
    until(lambda: client.count("transfer_show"), what="a look at the transfer")
    panel.close()
    until(lambda: not watching.watcher(client)._stale, what="the watching to end")
