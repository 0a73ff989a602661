"""Rows as frozen values, and the two statements that all records share: read rows, write a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, select
from sqlalchemy.dialects.sqlite import insert

R = TypeVar("R", bound="Row")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row; the field names are the column names."""


def read(tx: Connection, table: Table, kind: type[R], *where: ColumnElement[bool], order: Any = None) -> list[R]:
    """The rows that meet every condition."""
    query = select(*(table.c[name] for name in kind.__struct_fields__)).where(*where)
    if order is not None:
        query = query.order_by(*order) if isinstance(order, tuple) else query.order_by(order)
    return [kind(**row) for row in _mappings(tx, query)]


def _mappings(tx: Connection, query: Any) -> Iterator[Any]:
    yield from tx.execute(query).mappings()


def write(tx: Connection, table: Table, row: Row) -> None:
    """Insert the row, or replace the one with its primary key."""
    values = msgspec.structs.asdict(row)
    key = [column.name for column in table.primary_key]
    rest = {name: value for name, value in values.items() if name not in key}
    query = insert(table).values(**values)
    tx.execute(query.on_conflict_do_update(index_elements=key, set_=rest) if rest else query.on_conflict_do_nothing())
