"""Displays without a kernel, a front end or a node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labxchange.notebook import cells, watching
from tests.support.displays import Shown
from tests.unit.notebook.fake import DONE, FakeClient


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClient]:
    fake = FakeClient()
    monkeypatch.setattr(watching, "Client", lambda home, start: fake)
    monkeypatch.setattr(watching, "_PER_SECOND", 200)
    monkeypatch.setattr(watching, "_AGAIN_S", 0.01)
    monkeypatch.setattr(watching, "_IDLE_S", 0.05)
    yield fake
    fake.answers["transfer_show"] = DONE
    watching.watcher.cache_clear()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    made = Shown()
    monkeypatch.setattr(cells, "cell", lambda: 7)
    monkeypatch.setattr(cells, "publish", made)
    return made
