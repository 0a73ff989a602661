"""How far a transfer is while somebody waits for it at a terminal: one line on standard error, replaced in place and removed at
the end. Where standard error is no terminal, as in a notebook, a pipe or a job's log, nothing is written."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from labxchange.dataset.names import escape
from labxchange.node.values import TransferInfo
from labxchange.notebook.text import duration, size

_PER_SECOND = 5
_TITLE = 30


class Line:
    """The line; ``close`` removes it."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._on = self._out is not None and self._out.isatty()
        self._next = 0.0
        self._width = 0

    def show(self, info: TransferInfo) -> None:
        """At most a few times a second."""
        if not self._on or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1 / _PER_SECOND
        self._write(told(info))

    def close(self) -> None:
        if self._width:
            self._write("")

    def _write(self, text: str) -> None:
        print("\r" + text.ljust(self._width) + ("" if text else "\r"), end="", file=self._out, flush=True)
        self._width = len(text)


def told(info: TransferInfo) -> str:
    """``“Trial”: 45 %, 2.7 MB of 6.0 MB, 2.0 MB/s, 2 s left``."""
    percent = 100 * info.done_bytes // info.bytes if info.bytes else 0
    parts = [f"{percent} %", f"{size(info.done_bytes)} of {size(info.bytes)}"]
    parts += [f"{size(info.rate)}/s"] if info.rate else []
    parts += [f"{duration(info.eta)} left"] if info.eta >= 0 else []
    parts += [info.state + (f" ({info.reason})" if info.reason else "")] if info.state != "running" else []
    return f"“{escape(info.title, limit=_TITLE)}”: {', '.join(parts)}"
