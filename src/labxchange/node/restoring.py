"""Bringing a node back from the file of `labxchange node backup`, before any node runs there.

Rules
- an existing node is never replaced: a home that holds ``node.db`` or ``identity.json`` is refused
- the database appears under its name last, whole and on the disk; a crash before that leaves a home that can be restored again
- the sealed identity leaves the database for its own file, and a mark makes the node open a new epoch when it is unlocked next

The passphrase is not needed here. What the new epoch says is left to ``keys``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from labxchange.errors import InputError, IntegrityError, LabxchangeError, RefusedError
from labxchange.files.disk_errors import mapped, mapping
from labxchange.files.keyfile import write_secret
from labxchange.identity.card import parse_card
from labxchange.identity.sealing import load
from labxchange.node.home import Home
from labxchange.node.values import Value

_SEALED = "backup-identity"
_SQLITE = b"SQLite format 3\0"


class Restored(Value, frozen=True, kw_only=True):
    """Whose node is back, and where."""

    home: str
    name: str
    organisation: str


def restore_backup(source: Path, home: Home) -> Restored:
    """Make the node of a backup in an empty home; it stays locked.

    Raises:
        RefusedError: ``node-exists``.
        InputError: ``backup-unreadable``, ``not-permitted``.
        IntegrityError: ``database-damaged``, ``key-file-damaged``.
        UnavailableError: ``file-missing``, ``disk-full``, ``disk-error``.
    """
    with mapping(str(source)), source.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            raise _unreadable()
    _refuse_existing(home)
    home.create()
    fresh = _fresh(home)
    try:
        sealed, card = _take(source, fresh)
        write_secret(home.identity, sealed)
        with mapping(str(home.database)):
            os.rename(fresh, home.database)
            _sync(home.root)
    except OSError as error:
        _undo(fresh, home)
        raise mapped(error, str(fresh)) from error
    except BaseException:
        _undo(fresh, home)
        raise
    body = parse_card(card).body
    return Restored(home=str(home.root), name=body.name, organisation=body.organisation)


def _fresh(home: Home) -> Path:
    return home.database.with_name("node.db.restoring")


def _refuse_existing(home: Home) -> None:
    # A crash at the end of a restore leaves its key file and its unfinished database: that is no node yet.
    unfinished = _fresh(home).exists() and not home.database.exists()
    for path in (home.database,) if unfinished else (home.database, home.identity):
        if path.exists():
            raise RefusedError(
                "node-exists",
                f"There is a node in {home.root} already, and a restored one would replace it.",
                hint="Set LABXCHANGE_HOME to a new folder; or stop that node (`labxchange node stop`) and move its folder away.",
            )


def _take(source: Path, fresh: Path) -> tuple[bytes, bytes]:
    """Copy the backup to ``fresh`` and prepare it; returns the sealed identity and the card."""
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with source.open("rb") as reading, open(descriptor, "wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
    try:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as database:
            return _prepare(database)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
            raise OSError(None, str(error)) from None
        raise _unreadable() from None
    finally:
        _sync(fresh)


def _prepare(database: sqlite3.Connection) -> tuple[bytes, bytes]:
    for pragma in ("locking_mode=EXCLUSIVE", "synchronous=FULL", "secure_delete=ON"):
        database.execute(f"PRAGMA {pragma}").fetchall()
    if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise IntegrityError("database-damaged", "The backup is damaged.", hint="Use an older one.")
    found = dict(database.execute("SELECT name, value FROM settings WHERE name IN (?, 'card')", (_SEALED,)).fetchall())
    if _SEALED not in found or "card" not in found:
        raise _unreadable()
    load(found[_SEALED])
    database.execute("BEGIN IMMEDIATE")
    database.execute("DELETE FROM settings WHERE name = ?", (_SEALED,))
    database.execute("INSERT OR REPLACE INTO settings VALUES ('restored', ?)", (b"1",))
    database.execute("COMMIT")
    return bytes(found[_SEALED]), bytes(found["card"])


def _undo(fresh: Path, home: Home) -> None:
    """Leave the home as empty as it was; the identity is only there because of us."""
    for path in (fresh, fresh.with_name(fresh.name + "-wal"), home.identity):
        with contextlib.suppress(OSError, LabxchangeError):
            path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable() -> InputError:
    return InputError(
        "backup-unreadable",
        "This file is not a backup of a labxchange node, or it is damaged.",
        hint="It is the file that `labxchange node backup` wrote; `labxchange key restore` takes the one of `key backup`.",
    )
