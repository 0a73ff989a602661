"""What a node does that a kill must not harm, as points that a test can count, stop at, or hear of.

``install`` wraps the functions of ``POINTS`` and what makes something durable in the running process. A ``Trap`` kills the
process with SIGKILL at the n-th time a point is reached, before or after it. What the node vouches for - heads of its trail,
chunks and files in its journal - is told the moment it does so, and never before.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from sqlalchemy import Connection

from labxchange.audit.entry import Entry
from labxchange.files import hashing, quarantine
from labxchange.files.quarantine import Quarantine
from labxchange.net.channel import Stream
from labxchange.node import journal
from labxchange.node.core import Core
from labxchange.node.serving import Serving
from labxchange.store.database import Database
from labxchange.store.trail import Trail
from labxchange.transfer.receive import Download

Tell = Callable[[dict[str, Any]], None]
POINTS: dict[str, list[tuple[Any, str]]] = {
    "hash": [(hashing, "hash_file")],
    "write": [(Quarantine, "write")],
    "flush": [(Quarantine, "flush")],
    "rename": [(quarantine, "rename_no_replace")],
    "release": [(Quarantine, "release")],
    "discard": [(Quarantine, "discard")],
    "sync": [(os, "fsync"), (os, "fdatasync"), (quarantine, "sync_file_system")],
    "seal": [(Trail, "seal")],
    "send": [(Stream, "send")],
}
"""Also ``commit``: a transaction, before and after it is durable."""

SENDER = ("hash", "commit", "seal", "send")
RECIPIENT = ("write", "flush", "rename", "release", "discard", "sync", "commit", "seal", "send")


class Trap:
    """Kills this process; armed by ``set``."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kind = ""
        self._left = 0
        self._after = False

    def set(self, kind: str, count: int, *, after: bool) -> None:
        with self._lock:
            self._kind, self._left, self._after = kind, count, after

    def hit(self, kind: str, *, after: bool) -> None:
        with self._lock:
            if kind != self._kind or after != self._after:
                return
            self._left -= 1
            if self._left > 0:
                return
        os.kill(os.getpid(), signal.SIGKILL)


def install(trap: Trap, tell: Tell, *, count_sent: Callable[[str, int], None]) -> None:
    """Wrap everything; once a process."""
    for kind, places in POINTS.items():
        for owner, name in places:
            setattr(owner, name, _wrapped(getattr(owner, name), trap, kind))
    _watch_commits(trap)
    _watch_heads(tell)
    _watch_journal(tell)
    _watch_bytes(tell, count_sent)


def _wrapped(function: Callable[..., Any], trap: Trap, kind: str) -> Callable[..., Any]:
    if kind == "send":

        @functools.wraps(function)
        async def send(*args: Any, **kwargs: Any) -> Any:
            trap.hit(kind, after=False)
            result = await function(*args, **kwargs)
            trap.hit(kind, after=True)
            return result

        return send

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        trap.hit(kind, after=False)
        result = function(*args, **kwargs)
        trap.hit(kind, after=True)
        return result

    return call


def _watch_commits(trap: Trap) -> None:
    begin = Database.begin

    @contextmanager
    def watched(self: Database) -> Iterator[Connection]:
        if self.busy:
            with begin(self) as tx:
                yield tx
            return
        with begin(self) as tx:
            yield tx
            trap.hit("commit", after=False)
        trap.hit("commit", after=True)

    Database.begin = watched  # type: ignore[method-assign]


def _watch_heads(tell: Tell) -> None:
    act = Core.act

    @contextmanager
    def watched(self: Core, *entries: Entry) -> Iterator[Connection]:
        with act(self, *entries) as tx:
            yield tx
        assert self.trail is not None
        tell({"head": [self.trail.size, self.trail._frontier.root().hex()]})

    Core.act = watched  # type: ignore[method-assign]


def _watch_journal(tell: Tell) -> None:
    commit = journal.TransferJournal.commit

    def watched(self: Any, **what: Any) -> None:
        commit(self, **what)
        tell({name: [list(pair) for pair in what[name]] for name in ("arrived", "released")} | {"transfer": self._row.transfer})

    journal.TransferJournal.commit = watched  # type: ignore[method-assign]


def _watch_bytes(tell: Tell, count_sent: Callable[[str, int], None]) -> None:
    count, done = Serving._count, Download.done

    def counted(self: Serving, active: Any, size: int) -> None:
        count_sent(active.row.transfer, size)
        count(self, active, size)

    def arrived(self: Download, ended: Any) -> None:
        again = [item.chunk for item in ended if self._here[item.chunk]]
        if again:
            tell({"again": again, "transfer": self.transfer})
        done(self, ended)

    Serving._count = counted  # type: ignore[method-assign]
    Download.done = arrived  # type: ignore[method-assign]
