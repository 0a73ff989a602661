"""Digests of local files by device, inode, size and times: a database of its own that may be lost without harm.

It is asked from hashing threads (never two at once), so it does not share the node's connection; its commits are not synced.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Column, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, create_engine
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

Key = tuple[int, int, int, int, int]
"""Device, inode, size, mtime_ns, ctime_ns."""

_metadata = MetaData()
_digests = Table(
    "digests",
    _metadata,
    Column("device", Integer, nullable=False),
    Column("inode", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("ctime_ns", Integer, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("chunks", LargeBinary, nullable=False),
    PrimaryKeyConstraint("device", "inode"),
    sqlite_with_rowid=False,
)
_NAMES = ("device", "inode", "size", "mtime_ns", "ctime_ns")
_SELECT = f"SELECT sha256, chunks FROM digests WHERE {' AND '.join(f'{name} = ?' for name in _NAMES)}"  # noqa: S608  constants
_BATCH = 1000


class HashCache:
    """``get`` and ``put`` as ``files.hashing`` asks for them; a damaged cache is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: list[dict[str, object]] = []
        try:
            self._open()
        except DBAPIError:
            self._begin_anew()

    def _open(self) -> None:
        with suppress(OSError):  # SQLite says better what is wrong
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._engine = create_engine(f"sqlite:///{self._path}", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self._connection = self._engine.connect()
        # NORMAL: a power loss may take the last rows, and never leaves a page torn, which could hold a wrong digest.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            self._connection.exec_driver_sql(f"PRAGMA {pragma}")
        _metadata.create_all(self._connection)
        self._connection.commit()

    def _begin_anew(self) -> None:
        """Replace a damaged cache by an empty one; where even that fails, keep it in memory."""
        with suppress(DBAPIError):
            self._connection.close()
        self._engine.dispose()
        try:
            for ending in ("", "-wal", "-shm", "-journal"):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            self._open()
        except (DBAPIError, OSError):
            self._path = Path(":memory:")
            self._open()

    def get(self, key: Key) -> tuple[bytes, bytes] | None:
        try:
            row = self._connection.exec_driver_sql(_SELECT, key).first()
        except DBAPIError:
            self._begin_anew()
            return None
        return (bytes(row[0]), bytes(row[1])) if row else None

    def put(self, key: Key, value: tuple[bytes, bytes]) -> None:
        self._fresh.append(dict(zip(_NAMES, key, strict=True)) | {"sha256": value[0], "chunks": value[1]})
        if len(self._fresh) >= _BATCH:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        rows, self._fresh = self._fresh, []
        if rows:
            query = insert(_digests)
            rest = {name: query.excluded[name] for name in ("size", "mtime_ns", "ctime_ns", "sha256", "chunks")}
            try:
                self._connection.execute(query.on_conflict_do_update(index_elements=["device", "inode"], set_=rest), rows)
                self._connection.commit()
            except DBAPIError:
                self._begin_anew()

    def close(self) -> None:
        self.save()
        self._connection.close()
        self._engine.dispose()
