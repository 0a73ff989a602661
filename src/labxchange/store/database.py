"""Opening ``node.db``: one process, one connection, durable commits.

Rules: ``locking_mode=EXCLUSIVE`` is set before WAL, so no shared-memory file is needed and a second node cannot open it;
``synchronous=FULL``, so a commit is on disk before it is reported; ``node.lock`` beside it says who holds it. All access but
``backup`` is synchronous and on the node's event loop: a commit takes some 100 microseconds, and nothing can come between a
check and its effect. What is in the tables is left to the other modules of this package.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import StaticPool

from labxchange.errors import IntegrityError, LabxchangeError, UnavailableError
from labxchange.store.damage import HINT

_SLICE_PAGES = 256
_PAUSE_S = 0.001
"""A backup copies this many pages at a time, and lets the node work in between."""
_PRAGMAS = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "cache_size=-16000")
_DISK_FULL = ("database or disk is full", "disk I/O error")


def _translate(error: DBAPIError, lock: Path) -> LabxchangeError:
    text = str(error.orig)
    if "locked" in text:
        return _held(lock)
    if any(words in text for words in _DISK_FULL):
        return UnavailableError(
            "disk-full",
            "The disk that holds the node's database is full or failing, so nothing can be recorded and nothing was done.",
            hint="Free some space (see `labxchange doctor`), then try again.",
        )
    return IntegrityError(
        "database-damaged",
        "The node's database cannot be read: it is damaged.",
        hint=HINT,
    )


def _held(lock: Path) -> UnavailableError:
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        who = f" by process {int(holder['pid'])} on {holder['host']!r} since {holder['since']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        who = ""
    return UnavailableError(
        "node-already-running", f"Another node has this home open{who}.", hint="Stop it with `labxchange node stop`."
    )


class Database:
    """The open database. ``begin()`` gives a connection inside one transaction: all of it is durable, or none. A block within
    a block joins it, so what reads may be called from what writes.

    Raises (constructor):
        UnavailableError: ``node-already-running``, ``disk-full``.
        IntegrityError: ``database-damaged``, ``database-newer``.
    """

    def __init__(self, path: Path, *, now_text: str = "") -> None:
        self.path = path
        self._lock = path.with_name("node.lock")
        self._connection: Connection | None = None
        self._copying = threading.Lock()
        self._closing = False
        self._engine = create_engine(
            f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 0.5}
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        with ExitStack() as undo, self._mapped():
            undo.callback(self._engine.dispose)
            self._open()
            undo.pop_all()
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now_text}
        descriptor = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(holder))

    def _open(self) -> None:
        old = os.umask(0o077)
        try:
            self._connection = self._engine.connect()
            with self._connection.begin():
                damage = self._connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        finally:
            os.umask(old)
        if damage != "ok":
            raise IntegrityError(
                "database-damaged",
                "The node's database is damaged.",
                hint=HINT,
            )
        self._migrate()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        assert self._connection is not None
        config.attributes["connection"] = self._connection
        with self._connection.begin():
            command.upgrade(config, "head")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise _translate(error, self._lock) from None
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.IntegrityError):
                raise
            raise _translate(error, self._lock) from None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction; durable when the outermost block ends, undone when it raises.

        Raises:
            UnavailableError: ``disk-full``; nothing of the block has happened.
            IntegrityError: ``database-damaged``.
        """
        assert self._connection is not None, "the database is closed"
        if self._connection.in_transaction():
            yield self._connection
            return
        with self._mapped(), self._connection.begin():
            yield self._connection

    @property
    def busy(self) -> bool:
        """True inside a transaction."""
        return self._connection is not None and self._connection.in_transaction()

    def backup(self, target: Path, *, settings: dict[str, bytes]) -> None:
        """A consistent copy of the running database (SQLite's online backup), with more ``settings``, flushed to the disk.

        For another thread: the connection is free between two steps of 1 MiB, a step waits while a transaction is open,
        and what is committed meanwhile is copied too (sqlite.org/c3ref/backup_finish.html).

        Raises:
            UnavailableError: ``disk-error``, ``node-stopping``.
        """
        with self._copying:
            self._copy(target, settings)

    def _copy(self, target: Path, settings: dict[str, bytes]) -> None:
        def between(*_: int) -> None:
            if self._closing:
                raise UnavailableError("node-stopping", "The node was stopped before the backup was written.")
            time.sleep(_PAUSE_S)

        if self._connection is None:
            raise UnavailableError("node-stopping", "The node is stopped, so nothing can be backed up.")
        raw: Any = self._connection.connection.driver_connection
        try:
            copy = sqlite3.connect(target)
            try:
                raw.backup(copy, pages=_SLICE_PAGES, progress=between, sleep=_PAUSE_S)
                copy.execute("PRAGMA journal_mode=DELETE")
                copy.execute("PRAGMA synchronous=FULL")
                copy.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", settings.items())
                copy.commit()
            finally:
                copy.close()
        except sqlite3.Error:
            raise UnavailableError("disk-error", "The backup could not be written.", hint="Is the disk full?") from None

    def close(self) -> None:
        self._closing = True
        if self._connection is not None:
            with self._copying:
                self._connection.close()
            self._connection = None
        self._engine.dispose()
        self._lock.unlink(missing_ok=True)


def _configure(raw: sqlite3.Connection, _record: object) -> None:
    raw.isolation_level = None
    with ExitStack() as undo:
        undo.callback(raw.close)
        try:
            for pragma in _PRAGMAS:
                raw.execute(f"PRAGMA {pragma}").fetchall()
        except UnicodeDecodeError:  # a damaged schema: SQLite's message quotes it, and it is no text any more
            raise sqlite3.DatabaseError("malformed database schema") from None
        undo.pop_all()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
