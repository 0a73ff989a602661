"""Named values of the node that are not worth a table: the port, the clock's high-water mark, the newest own card."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from labxchange.store.damage import reading
from labxchange.store.rows import Row, write
from labxchange.store.tables import settings


class _Setting(Row, frozen=True, kw_only=True):
    name: str
    value: bytes


def get(tx: Connection, name: str) -> bytes | None:
    return tx.execute(select(settings.c.value).where(settings.c.name == name)).scalar()


def number(tx: Connection, name: str) -> int:
    """0 for a value that is not there; raises IntegrityError ``database-damaged``, as ``text``."""
    found = get(tx, name)
    with reading(f"The setting {name!r}"):
        return 0 if found is None else int(found)


def text(tx: Connection, name: str) -> str:
    with reading(f"The setting {name!r}"):
        return (get(tx, name) or b"").decode()


def put(tx: Connection, name: str, value: bytes) -> None:
    write(tx, settings, _Setting(name=name, value=value))


def drop(tx: Connection, name: str) -> None:
    tx.execute(delete(settings).where(settings.c.name == name))
