"""A live display over a real node that ends while it shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labxchange.node.client import run
from labxchange.node.verbs import Verbs
from labxchange.notebook import displays, watching
from tests.integration.test_two_nodes import leave, offered, pair
from tests.support.world import write_files

MEGABYTE = 1_000_000


class Cell:
    """The output of a cell: what was displayed there, replaced in place."""

    def __init__(self) -> None:
        self.forms: dict[str, Any] = {}

    def __call__(self, forms: dict[str, Any]) -> Cell:
        self.forms = forms
        return self

    def update(self, forms: dict[str, Any], *, raw: bool) -> None:
        assert raw
        self.forms = forms


def until(reached: Callable[[], object], *, what: str) -> None:
    deadline = time.monotonic() + 90
    while not reached():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_a_display_says_that_its_node_is_gone_and_goes_on_with_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell()
    monkeypatch.setattr(displays, "publish", cell)
    ada, bo = run(pair(place))
    write_files(place / "data", {"adsl.bin": b"\x01" * (4 * MEGABYTE)})
    made = run(ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="Trial"))
    run(offered(bo, made))
    started = run(bo.client.call(Verbs.receive, share="Trial", rate=MEGABYTE))
    view = displays.TransferView(bo.client, started)
    view.show()
    until(lambda: "running" in view._card.value and "Trial" in view._card.value, what="the transfer to run")
    bo.kill()
    until(lambda: "The node is not running." in view._card.value, what="the display to say so")
    assert not watching.watcher(bo.client).client._start, "a display starts no node"
    run(bo.client.call(Verbs.status))
    until(lambda: "signed by both" in cell.forms["text/html"], what="the end")
    assert set(cell.forms) == {"text/html", "text/plain"}
    assert not [text for text in cell.forms.values() for name in ("Ada", "Bo", "Trial", "adsl", "data") if name in text]
    run(leave(ada, bo))
