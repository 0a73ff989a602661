"""A live display over a real node that ends while it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from labxchange.node.client import run
from labxchange.node.verbs import Verbs
from labxchange.notebook import cells, displays, watching
from tests.integration.test_two_nodes import leave, offered, pair
from tests.support.displays import Shown, until
from tests.support.world import write_files

MEGABYTE = 1_000_000


def test_a_display_says_that_its_node_is_gone_and_goes_on_with_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    monkeypatch.setattr(cells, "publish", shown)
    ada, bo = run(pair(place))
    write_files(place / "data", {"adsl.bin": b"\x01" * (4 * MEGABYTE)})
    made = run(ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="Trial"))
    run(offered(bo, made))
    started = run(bo.client.call(Verbs.receive, share="Trial", rate=MEGABYTE))
    view = displays.TransferView(bo.client, started)
    view.show()
    until(lambda: "running" in view._card.value and "Trial" in view._card.value, what="the transfer to run", within_s=90)
    bo.kill()
    until(lambda: "The node is not running." in view._card.value, what="the display to say so", within_s=90)
    assert not watching.watcher(bo.client).client._start, "a display starts no node"
    run(bo.client.call(Verbs.status))
    until(lambda: "signed by both" in shown.forms[-1]["text/html"], what="the end", within_s=90)
    assert set(shown.forms[-1]) == {"text/html", "text/plain"}
    assert not [text for text in shown.forms[-1].values() for name in ("Ada", "Bo", "Trial", "adsl", "data") if name in text]
    run(leave(ada, bo))
