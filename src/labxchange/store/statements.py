"""Signed statements by id, the detached bodies they name, and what still has to be delivered to whom."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, literal_column, select
from sqlalchemy.dialects.sqlite import insert

from labxchange.identity.statement import Signed, Statement, parse
from labxchange.store.damage import damaged, reading
from labxchange.store.rows import Row
from labxchange.store.tables import bodies, outbox, statements

PAGE_BYTES = 1 << 20
_ORDER: ColumnElement[int] = literal_column("statements.rowid")
"""The order in which they were kept: times tie, and the clock may have been set back."""
_GET = select(statements.c.envelope).where(statements.c.id == bindparam("of"))
_FIND = _GET.where(statements.c.kind == bindparam("kind"))
_ABOUT = (
    select(statements.c.envelope)
    .where(statements.c.about == bindparam("subject"), statements.c.kind == bindparam("of"))
    .order_by(_ORDER)
)
"""Asked all the time, so built once."""

S = TypeVar("S", bound=Statement)


class _Statement(Row, frozen=True, kw_only=True):
    id: str
    kind: str
    issuer: str
    about: str
    stored_ms: int
    envelope: bytes


def put(tx: Connection, signed: Signed[Any], *, about: str, now: int) -> None:
    """Keep a statement; one that is kept already stays as it came first. ``about``: the share, grant or transfer it is of."""
    row = _Statement(
        id=signed.id,
        kind=signed.body.kind,
        issuer=signed.body.issuer,
        about=about,
        stored_ms=now,
        envelope=signed.envelope,
    )
    tx.execute(insert(statements).values(**msgspec.structs.asdict(row)).on_conflict_do_nothing())


def get(tx: Connection, statement: str) -> bytes | None:
    """The envelope, or None."""
    return tx.execute(_GET, {"of": statement}).scalar()


def find(tx: Connection, statement: str, kind: type[S]) -> Signed[S] | None:
    """The statement, verified again; None also for the id of a statement of another kind.

    Raises:
        IntegrityError: ``database-damaged``, as all that reads statements here.
    """
    envelope = tx.execute(_FIND, {"of": statement, "kind": kind.kind}).scalar()
    return None if envelope is None else _read(envelope, kind)


def need(tx: Connection, statement: str, kind: type[S]) -> Signed[S]:
    """The same of a statement that must be there, because something that is kept names it."""
    found = find(tx, statement, kind)
    if found is None:
        raise damaged(_name(kind))
    return found


def about(tx: Connection, subject: str, kind: type[S]) -> list[Signed[S]]:
    """The statements of ``kind`` about ``subject``, oldest first."""
    return [_read(envelope, kind) for envelope in tx.execute(_ABOUT, {"subject": subject, "of": kind.kind}).scalars()]


def any_about(tx: Connection, subject: str, kind: type[Statement]) -> bool:
    """True when there is a statement of ``kind`` about ``subject``."""
    return tx.execute(_ABOUT, {"subject": subject, "of": kind.kind}).first() is not None


def _read(envelope: bytes, kind: type[S]) -> Signed[S]:
    with reading(_name(kind)):
        return parse(envelope, kind)


def _name(kind: type[Statement]) -> str:
    return f"A signed statement ({kind.kind})"


def is_about(tx: Connection, statement: str, subject: str, kind: type[Statement]) -> bool:
    """True when a statement of this id is kept, is of ``kind`` and about ``subject``."""
    where = (statements.c.id == statement, statements.c.about == subject, statements.c.kind == kind.kind)
    return tx.execute(select(statements.c.id).where(*where)).first() is not None


def of_kind(tx: Connection, kind: str) -> list[bytes]:
    """All envelopes of a kind, oldest first."""
    query = select(statements.c.envelope).where(statements.c.kind == kind)
    return list(tx.execute(query.order_by(_ORDER)).scalars())


def ids(tx: Connection, kind: str, *, about: str = "") -> list[str]:
    """The ids of the statements of a kind, of all or of one subject, oldest first: to read many of them one by one."""
    query = select(statements.c.id).where(statements.c.kind == kind)
    if about:
        query = query.where(statements.c.about == about)
    return list(tx.execute(query.order_by(_ORDER)).scalars())


def post(tx: Connection, peer: str, statement: str) -> None:
    """Put a kept statement into the outbox for ``peer``."""
    tx.execute(insert(outbox).values(peer=peer, statement=statement))


def posted(tx: Connection, peer: str, limit: int) -> list[tuple[int, bytes]]:
    """What waits for ``peer``, oldest first, as (outbox id, envelope)."""
    query = select(outbox.c.id, statements.c.envelope).join(statements, statements.c.id == outbox.c.statement)
    query = query.where(outbox.c.peer == peer).order_by(outbox.c.id).limit(limit)
    return [(int(row[0]), bytes(row[1])) for row in tx.execute(query)]


def count_posted(tx: Connection, peer: str, *, kind: str = "") -> int:
    """How many statements wait for ``peer``, of all kinds or of one."""
    query = select(func.count()).select_from(outbox).where(outbox.c.peer == peer)
    if kind:
        query = query.join(statements, statements.c.id == outbox.c.statement).where(statements.c.kind == kind)
    return int(tx.execute(query).scalar_one())


def unpost(tx: Connection, ids: Iterable[int]) -> None:
    tx.execute(delete(outbox).where(outbox.c.id.in_(list(ids))))


def peers_with_post(tx: Connection) -> list[str]:
    return list(tx.execute(select(outbox.c.peer).distinct()).scalars())


def put_body(tx: Connection, data: bytes) -> str:
    """Keep a detached body in pages of 1 MiB; returns its SHA-256 in hex. An empty body has one empty page."""
    digest = sha256(data).hexdigest()
    view = memoryview(data)
    pages = [
        {"digest": digest, "page": number, "data": bytes(view[start : start + PAGE_BYTES])}
        for number, start in enumerate(range(0, max(len(data), 1), PAGE_BYTES))
    ]
    tx.execute(insert(bodies).on_conflict_do_nothing(), pages)
    return digest


def page_of(tx: Connection, digest: str, page: int) -> tuple[bytes, bool] | None:
    """Page number ``page`` and whether it is the last; None when there is none."""
    data = tx.execute(select(bodies.c.data).where(bodies.c.digest == digest, bodies.c.page == page)).scalar()
    if data is None:
        return None
    following = select(bodies.c.page).where(bodies.c.digest == digest, bodies.c.page == page + 1)
    return data, tx.execute(following).first() is None


def body(tx: Connection, digest: str) -> bytes | None:
    """The whole body, or None.

    Raises:
        IntegrityError: ``database-damaged``: it is not what its digest says.
    """
    query = select(bodies.c.data).where(bodies.c.digest == digest).order_by(bodies.c.page)
    pages = list(tx.execute(query).scalars())
    if not pages:
        return None
    with reading("A list of files"):
        data = b"".join(pages)
    if sha256(data).hexdigest() != digest:
        raise damaged("A list of files")
    return data


def is_posted(tx: Connection, peer: str, statement: str) -> bool:
    """True while the statement waits in the outbox for ``peer``."""
    return tx.execute(select(outbox.c.id).where(outbox.c.peer == peer, outbox.c.statement == statement)).first() is not None
