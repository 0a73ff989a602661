"""Refusals that could be repeated without end, written once a minute for each peer and reason, with their count; those beyond a
number of peers and reasons together, so that nobody makes more kinds of them by making up reasons.

So every refusal is in the trail, and nobody can fill the disk with entries.
"""

from __future__ import annotations

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.node.core import Core

_WINDOW_MS = 60_000
_MAX_KEYS = 1000
_MAX_STRANGERS = 30
_OBJECTS = {Event.ACCESS_DENIED: "connection", Event.SECURITY_FORGERY: "datagram"}


class Denials:
    """Counts refusals and writes them. The first of a kind is written at once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._counts: dict[tuple[Event, str, str], tuple[int, int]] = {}
        self._strangers: set[tuple[Event, str, str]] = set()

    def note(
        self,
        code: str,
        key: str,
        *,
        event: Event = Event.ACCESS_DENIED,
        entry: Entry | None = None,
        stranger: bool = False,
        count: int = 1,
    ) -> None:
        """One refusal of ``key`` (or an address) for ``code``, or ``count`` of them.

        Args:
            entry: what the first of a kind is written as; the others of its minute only add to their count.
            stranger: anybody can have as many such keys or addresses as they like, so few are named in a minute.
        """
        kind = (event, code, key)
        now = self._core.clock.now()
        full = len(self._counts) >= _MAX_KEYS or (stranger and len(self._strangers) >= _MAX_STRANGERS)
        if kind not in self._counts and full:
            kind, entry = (event, "various", "others"), None
        written, pending = self._counts.get(kind, (0, 0))
        if written and 0 <= now - written < _WINDOW_MS:
            self._counts[kind] = (written, pending + count)
            return
        if entry is None:
            self._write(kind, pending + count)
        elif self._core.trail is not None:
            self._core.record(entry)
        self._counts[kind] = (now, 0)
        if stranger:
            self._strangers.add(kind)

    def flush(self) -> None:
        """Write what was counted and is a minute old; forget what is quiet."""
        now = self._core.clock.now()
        for kind, (written, pending) in list(self._counts.items()):
            if not 0 <= now - written < _WINDOW_MS:
                if pending:
                    self._write(kind, pending)
                del self._counts[kind]
                self._strangers.discard(kind)

    def _write(self, kind: tuple[Event, str, str], count: int) -> None:
        event, code, key = kind
        if self._core.trail is None:
            return
        named = key if len(key) == 64 else ""
        details: dict[str, str | int] = {"count": count} if named else {"count": count, "from": key}
        self._core.record(
            Entry(
                event=event,
                object_type=_OBJECTS.get(event, "message"),
                result="denied",
                result_code=code,
                counterparty=named,
                details=details,
            )
        )
