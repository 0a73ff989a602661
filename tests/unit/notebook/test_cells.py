"""What is shown in a cell is closed once another run of the cell, or its end, took it away."""

from __future__ import annotations

import msgspec
import pytest

from labxchange.node.values import ContactInfo, EntryInfo, NodeStatus, RecipientStatus, ShareInfo
from labxchange.notebook import cells, watching
from labxchange.notebook.displays import attach
from labxchange.notebook.inbox_panel import InboxPanel
from labxchange.notebook.panels import Panel
from labxchange.notebook.share_form import ShareForm
from labxchange.notebook.trail_panel import TrailPanel
from tests.support.displays import Shown, open_widgets, until
from tests.unit.cli.fake import sample
from tests.unit.notebook.fake import DONE, RUNNING, FakeClient


class Runs:
    """Which cell runs, and for the how-manieth time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number, self.place = 0, ""
        monkeypatch.setattr(cells, "cell", lambda: self.number)
        monkeypatch.setattr(cells, "cell_id", lambda: self.place)
        monkeypatch.setattr(cells, "_shown", {})

    def run(self, place: str) -> None:
        self.number, self.place = self.number + 1, place


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def panel_of(client: FakeClient, kind: type[Panel]) -> Panel:
    client.answers |= {
        "inbox_list": [],
        "contact_list": [sample(ContactInfo, name="Bo", key="k", state="verified")],
        "audit_list": [sample(EntryInfo, seq=4, event="transfer.verified")],
        "status": sample(NodeStatus, trail_size=5),
    }
    if kind is TrailPanel:
        return TrailPanel(client, event="", about="", limit=9)  # type: ignore[arg-type]
    return kind(client)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [InboxPanel, TrailPanel, ShareForm])
def test_a_panel_that_is_closed_leaves_no_widget(client: FakeClient, kind: type[Panel]) -> None:
    before = open_widgets()
    panel = panel_of(client, kind)
    until(lambda: client.asked, what="its first look")
    assert open_widgets() > before
    panel.close()
    panel.close()
    assert open_widgets() == before
    until(lambda: not watching.watcher(client)._stale, what="the watching to end")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [InboxPanel, TrailPanel, ShareForm])
def test_running_a_cell_again_keeps_one_panel(client: FakeClient, runs: Runs, kind: type[Panel]) -> None:
    before, held = open_widgets(), 0
    for _ in range(5):
        runs.run("a")
        panel = panel_of(client, kind)
        assert panel._repr_mimebundle_()
        held = held or len(open_widgets() - before)
        assert len(open_widgets() - before) == held
    panel.close()
    assert open_widgets() == before


def test_what_is_shown_elsewhere_or_beside_it_stays(client: FakeClient, runs: Runs) -> None:
    runs.run("a")
    one, other, form = (panel_of(client, kind) for kind in (InboxPanel, InboxPanel, ShareForm))
    for panel in (one, other, form):
        panel._repr_mimebundle_()
    runs.run("b")
    one._repr_mimebundle_()
    runs.run("a")
    again = panel_of(client, InboxPanel)
    again._repr_mimebundle_()
    assert [panel._closed for panel in (one, other, form, again)] == [False, True, False, False]
    runs.run("a")
    again._repr_mimebundle_()
    assert not again._closed, "the same one shown again"
    for panel in (one, form, again):
        panel.close()


def test_a_transfer_shown_by_each_run_is_watched_once(client: FakeClient, shown: Shown, runs: Runs) -> None:
    before = open_widgets()
    for _ in range(4):
        runs.run("a")
        attach(client, RUNNING)  # type: ignore[arg-type]
    until(lambda: len(watching.watcher(client)._stale) == 1, what="the earlier ones to end")  # type: ignore[arg-type]
    live = open_widgets() - before
    client.answers["transfer_show"] = DONE
    until(lambda: "e" * 64 in shown.forms[-1].get("text/html", ""), what="the end")
    over = open_widgets() - before
    assert over < live, "its buttons are closed"
    runs.run("a")
    attach(client, RUNNING)  # type: ignore[arg-type]
    assert not open_widgets() & over, "what was over is closed with the next run"


def test_a_share_shown_by_each_run_is_asked_for_once(client: FakeClient, shown: Shown, runs: Runs) -> None:
    person = sample(RecipientStatus, name="Ada", state="waiting for them")
    info = sample(ShareInfo, share="cd34", version=1, state="available", bytes=10, files=2, recipients=(person,))
    client.answers["share_status"] = info
    for _ in range(3):
        runs.run("a")
        attach(client, info)  # type: ignore[arg-type]
    until(lambda: len(watching.watcher(client)._stale) == 1, what="the earlier ones to end")  # type: ignore[arg-type]
    client.answers["share_status"] = msgspec.structs.replace(
        info, recipients=(msgspec.structs.replace(person, state="verified"),)
    )
    until(lambda: not watching.watcher(client)._stale, what="the end")  # type: ignore[arg-type]


def test_without_a_cell_s_id_nothing_is_closed(client: FakeClient, runs: Runs) -> None:
    panels = []
    for _ in range(2):
        runs.run("")
        panels.append(panel_of(client, InboxPanel))
        panels[-1]._repr_mimebundle_()
    assert [panel._closed for panel in panels] == [False, False]
    for panel in panels:
        panel.close()


def test_outside_a_kernel_there_is_no_cell() -> None:
    assert cells.cell() is None
    assert cells.cell_id() == ""
