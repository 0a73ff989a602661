"""Live displays: what is shown, when it is asked for anew, what stays; without a kernel, a front end or a node."""

from __future__ import annotations

import threading

import msgspec
import pytest

from labxchange.errors import InputError, LabxchangeError, NodeLocked
from labxchange.node.client import not_running
from labxchange.node.values import EntryInfo, Exported, NodeStatus, RecipientStatus, ShareInfo, TransferInfo
from labxchange.notebook import cells, displays, watching
from labxchange.notebook.handles import Transfer
from labxchange.notebook.inbox_panel import InboxPanel
from labxchange.notebook.trail_panel import TrailPanel
from tests.support.displays import Shown, until
from tests.unit.cli.fake import sample
from tests.unit.notebook.fake import DONE, RUNNING, FakeClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def attach(client: FakeClient, info: TransferInfo | ShareInfo) -> int | None:
    return displays.attach(client, info)  # type: ignore[arg-type]


def view_of(client: FakeClient) -> displays.TransferView:
    return displays.TransferView(client, RUNNING)  # type: ignore[arg-type]


def test_where_no_notebook_is_nothing_is_shown_and_nothing_fails(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert attach(client, RUNNING) is None
    assert not client.asked
    with pytest.raises(NotImplementedError):
        Transfer(client, RUNNING)._ipython_display_()  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")


def test_without_ipywidgets_nothing_is_shown_and_nothing_fails(
    client: FakeClient, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(displays.sys.modules, "ipywidgets", None)
    assert attach(client, RUNNING) is None
    assert not shown.forms
    with pytest.raises(LabxchangeError) as missing:
        InboxPanel(client)  # type: ignore[arg-type]
    assert missing.value.code == "widgets-missing"


def test_a_display_that_fails_does_not_fail_the_transfer(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(cells, "cell", lambda: 7)
    monkeypatch.setattr(cells, "publish", broken)
    assert attach(client, RUNNING) is None


def test_a_transfer_is_live_and_then_static_without_names(client: FakeClient, shown: Shown) -> None:
    assert attach(client, RUNNING) == 7
    assert WIDGET in shown.forms[0]
    until(lambda: client.count("transfer_show"), what="the first look")
    client.answers["transfer_show"] = DONE
    client.tell("transfer", "ab12")
    until(lambda: len(shown.forms) == 2, what="the end")
    last = shown.forms[1]
    assert set(last) == {"text/html", "text/plain"}
    assert "e" * 64 in last["text/html"]
    assert not [form for form in shown.forms for text in form.values() if "Ada" in str(text) or "Trial" in str(text)]
    looks = client.count("transfer_show")
    client.tell("transfer", "ab12")
    client.tell("transfer", "ab12")
    assert client.count("transfer_show") == looks, "what is over is asked for no more"


def test_what_is_over_already_is_static_at_once(client: FakeClient, shown: Shown) -> None:
    assert attach(client, DONE) == 7
    assert len(shown.forms) == 1
    assert WIDGET not in shown.forms[0]
    assert "e" * 64 in shown.forms[0]["text/html"]


def test_the_cell_that_made_a_handle_shows_it_once(client: FakeClient, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Transfer(client, RUNNING, shown_in=attach(client, RUNNING))  # type: ignore[arg-type]
    handle._ipython_display_()
    assert len(shown.forms) == 1
    monkeypatch.setattr(cells, "cell", lambda: 8)
    handle._ipython_display_()
    assert len(shown.forms) == 2


def test_a_thousand_notices_are_one_look(client: FakeClient, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_IDLE_S", 60.0)
    attach(client, RUNNING)
    until(lambda: client.count("transfer_show"), what="the first look")
    before = client.count("transfer_show")
    client.tell("transfer", "ab12", times=1000)
    client.answers["transfer_show"] = DONE
    client.tell("transfer", "ab12")
    until(lambda: len(shown.forms) == 2, what="the end")
    assert client.count("transfer_show") - before <= 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (not_running(), "The node is not running. This display goes on when it is back."),
        (NodeLocked(), "locked"),
        (InputError("transfer-unknown", "There is no such transfer."), "There is no such transfer."),
    ],
)
def test_a_node_that_cannot_be_asked_is_said_and_waited_for(
    client: FakeClient, shown: Shown, error: LabxchangeError, said: str
) -> None:
    view = view_of(client)
    view.show()
    until(lambda: client.count("transfer_show"), what="the first look")
    client.answers["transfer_show"] = error
    until(lambda: said in view._card.value and "last known: running" in view._card.value, what="the sentence")
    client.answers["transfer_show"] = RUNNING
    until(lambda: said not in view._card.value, what="the node to be back")
    client.answers["transfer_show"] = DONE
    until(lambda: len(shown.forms) == 2, what="the end")


def test_a_press_hands_over_and_does_not_wait(client: FakeClient, shown: Shown) -> None:
    view = view_of(client)
    client.answers["transfer_pause"] = hold = threading.Event()
    view._pause.click()
    until(lambda: client.count("transfer_pause"), what="the call")
    assert view._pause.disabled, "it is not over when the press returns"
    hold.set()
    until(lambda: not view._pause.disabled, what="the answer")


def test_cancel_asks_once_more(client: FakeClient, shown: Shown) -> None:
    view = view_of(client)
    client.answers["transfer_cancel"] = msgspec.structs.replace(RUNNING, state="cancelled")
    view._cancel.click()
    assert view._cancel.description == "Really cancel"
    assert not client.count("transfer_cancel")
    view._cancel.click()
    until(lambda: view._cancel.disabled, what="the answer")
    assert client.count("transfer_cancel") == 1


def test_a_press_that_is_refused_says_why(client: FakeClient, shown: Shown) -> None:
    view = view_of(client)
    view.show()
    client.answers["transfer_pause"] = InputError("transfer-over", "This transfer is completed.")
    view._pause.click()
    until(lambda: "This transfer is completed." in view._card.value, what="the sentence")
    looks = client.count("transfer_show")
    client.tell("transfer", "ab12")
    until(lambda: client.count("transfer_show") > looks + 1, what="two more looks")
    assert "This transfer is completed." in view._card.value, "there is time to read it"


def test_a_share_counts_its_recipients_and_ends_with_the_last(client: FakeClient, shown: Shown) -> None:
    one = sample(RecipientStatus, name="Ada Silva", state="waiting for them")
    info = sample(ShareInfo, share="cd34", version=1, title="Trial", state="hashing", bytes=10, files=2, recipients=(one,))
    client.answers["share_status"] = info
    attach(client, info)
    ready = msgspec.structs.replace(info, state="available", root="f" * 64)
    client.answers["share_status"] = ready
    until(lambda: "available" in shown.forms[-1]["text/html"], what="the hashes")
    got = (msgspec.structs.replace(one, state="verified"),)
    client.answers["share_status"] = msgspec.structs.replace(ready, recipients=got)
    client.tell("share", "cd34")
    until(lambda: "1 verified" in shown.forms[-1]["text/html"], what="the recipient")
    assert not [form for form in shown.forms for text in form.values() if "Ada" in text or "Trial" in text]


def test_the_trail_is_looked_at_only_when_somebody_asks(client: FakeClient) -> None:
    entry = sample(EntryInfo, seq=4, event="transfer.verified", fields={"person": "Ada"})
    client.answers |= {
        "audit_list": [entry],
        "status": sample(NodeStatus, trail_size=5),
        "audit_export": sample(Exported, path="/tmp/out.csv", entries=5, size=10),
    }
    panel = TrailPanel(client, event="", about="", limit=100)  # type: ignore[arg-type]
    until(lambda: "transfer.verified" in panel._table.value and panel._seen, what="the entries")
    client.answers["status"] = sample(NodeStatus, trail_size=8)
    client.tell("trail")
    until(lambda: "3 entries more since" in panel._since.value, what="the growth")
    assert client.count("audit_list") == 1
    panel._event.value = "transfer"
    until(lambda: client.count("audit_list") == 2, what="the filter")
    assert client.asked[-1][1].get("event", "transfer") == "transfer"
    panel._form.value = "csv"
    assert panel._path.value == "trail.csv"
    panel._export.click()
    until(lambda: "are in /tmp/out.csv" in panel.remark.value, what="the export")
    panel.close()
