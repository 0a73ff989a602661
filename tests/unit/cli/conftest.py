"""Every test of the command line has a node that is not there, and nobody at the terminal unless it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.fake import FakeNode, install, person


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNode:
    monkeypatch.setenv("LABXCHANGE_HOME", str(tmp_path / "home"))
    person(present=False, monkeypatch=monkeypatch)
    return install(monkeypatch)
