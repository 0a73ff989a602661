"""What tests of displays look at: the output of a cell, what a kernel holds open, and waiting for what other threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Shown:
    """What a cell got: its first forms, and each replacement."""

    def __init__(self) -> None:
        self.forms: list[dict[str, Any]] = []

    def __call__(self, forms: dict[str, Any]) -> Shown:
        self.forms.append(forms)
        return self

    def update(self, forms: dict[str, Any], *, raw: bool) -> None:
        assert raw
        self.forms.append(forms)


def until(reached: Callable[[], object], *, what: str, within_s: float = 20.0) -> None:
    """Until other threads have done it; the loop of a client runs in one, so nothing here can be told of it."""
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def open_widgets() -> set[str]:
    """The model ids of what ipywidgets keeps open in this process: widgets, layouts and styles."""
    from ipywidgets.widgets import widget

    return set(widget._instances)
