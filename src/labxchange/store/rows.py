"""Rows as frozen values, and the two statements that all records share: read rows, write a row.

Statements that are asked for again and again are built once: to build one takes four times as long as to run it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, select
from sqlalchemy.dialects.sqlite import Insert, insert

from labxchange.store.damage import reading

R = TypeVar("R", bound="Row")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row; the field names are the column names."""


def read(tx: Connection, table: Table, kind: type[R], *where: ColumnElement[bool], order: Any = None) -> list[R]:
    """The rows that meet every condition."""
    query = columns_of(table, kind).where(*where)
    if order is not None:
        query = query.order_by(*order) if isinstance(order, tuple) else query.order_by(order)
    return rows_of(kind, tx.execute(query))


def read_by(tx: Connection, table: Table, kind: type[R], **values: Any) -> list[R]:
    """The rows that have these values in these columns."""
    return rows_of(kind, tx.execute(_by(table, kind, tuple(values)), values))


def rows_of(kind: type[R], found: Iterable[Any]) -> list[R]:
    """What a query of the columns of ``kind`` found.

    Raises:
        IntegrityError: ``database-damaged``: a value that no row of this kind can have.
    """
    names = kind.__struct_fields__
    with reading("A row"):
        return [msgspec.convert(dict(zip(names, row, strict=True)), kind) for row in found]


@cache
def _by(table: Table, kind: type[Row], columns: tuple[str, ...]) -> Select[Any]:
    return columns_of(table, kind).where(*(table.c[name] == bindparam(name) for name in columns))


@cache
def columns_of(table: Table, kind: type[Row]) -> Select[Any]:
    """All rows, as ``rows_of`` takes them."""
    return select(*(table.c[name] for name in kind.__struct_fields__))


def write(tx: Connection, table: Table, row: Row) -> None:
    """Insert the row, or replace the one with its primary key."""
    tx.execute(_writing(table, type(row)), msgspec.structs.asdict(row))


@cache
def _writing(table: Table, kind: type[Row]) -> Insert:
    query = insert(table)
    key = [column.name for column in table.primary_key]
    rest = {name: query.excluded[name] for name in kind.__struct_fields__ if name not in key}
    return query.on_conflict_do_update(index_elements=key, set_=rest) if rest else query.on_conflict_do_nothing()
