"""Refusals that could be repeated without end, written once a minute for each peer and reason, with their count.

So every refusal is in the trail, and nobody can fill the disk with entries.
"""

from __future__ import annotations

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.node.core import Core

_WINDOW_MS = 60_000
_MAX_KEYS = 1000


class Denials:
    """Counts refusals and writes them. The first of a kind is written at once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._counts: dict[tuple[Event, str, str], tuple[int, int]] = {}

    def note(self, code: str, key: str, *, event: Event = Event.ACCESS_DENIED) -> None:
        """One refusal of ``key`` (or an address) for ``code``."""
        kind = (event, code, key)
        now = self._core.clock.now()
        if kind not in self._counts and len(self._counts) >= _MAX_KEYS:
            kind = (event, code, "others")
        written, pending = self._counts.get(kind, (0, 0))
        if written and now - written < _WINDOW_MS:
            self._counts[kind] = (written, pending + 1)
            return
        self._write(kind, pending + 1)
        self._counts[kind] = (now, 0)

    def flush(self) -> None:
        """Write what was counted and is a minute old; forget what is quiet."""
        now = self._core.clock.now()
        for kind, (written, pending) in list(self._counts.items()):
            if now - written >= _WINDOW_MS:
                if pending:
                    self._write(kind, pending)
                del self._counts[kind]

    def _write(self, kind: tuple[Event, str, str], count: int) -> None:
        event, code, key = kind
        if self._core.trail is None:
            return
        named = key if len(key) == 64 else ""
        details: dict[str, str | int] = {"count": count} if named else {"count": count, "from": key}
        self._core.record(
            Entry(
                event=event,
                object_type="connection" if event is Event.ACCESS_DENIED else "message",
                result="denied",
                result_code=code,
                counterparty=named,
                details=details,
            )
        )
