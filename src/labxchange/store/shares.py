"""Share versions and grants, one's own and those of others.

An id is chosen by who shares, so it names a share or a grant only together with its owner: nobody takes an id away from another.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import asdict
from sqlalchemy import BindParameter, ColumnElement, Connection, bindparam, func, select, update
from sqlalchemy.dialects.sqlite import insert

from labxchange.store.rows import Row, columns_of, read, read_by, rows_of, write
from labxchange.store.tables import grant_recipients, grants, shares


class ShareRow(Row, frozen=True, kw_only=True):
    """A share version. ``statement``, ``listing`` and ``manifest`` are statement ids; ``digests`` the id of the body of chunk
    digests; ``source`` (own shares) the encoded list of source paths."""

    share: str
    version: int
    owner: str
    state: Literal["hashing", "available", "failed", "retracted"]
    title: str
    statement: str
    listing: str
    manifest: str = ""
    digests: str = ""
    source: bytes = b""
    stored_ms: int


class GrantRow(Row, frozen=True, kw_only=True):
    """A grant at its newest revision; ``ended`` is 1 once its end was recorded in the trail, ``restored`` when the node came back
    from a backup since it was given: then more was perhaps sent under it than this database knows."""

    grant: str
    owner: str
    share: str
    version: int
    statement: str
    offer: str = ""
    revocation: str = ""
    not_after: int
    ended: int = 0
    asked_until: int = 0
    restored: int = 0


def share(tx: Connection, share_id: str, version: int, *, owner: str) -> ShareRow | None:
    found = read_by(tx, shares, ShareRow, owner=owner, share=share_id, version=version)
    return found[0] if found else None


def all_shares(tx: Connection, *where: ColumnElement[bool]) -> list[ShareRow]:
    return read(tx, shares, ShareRow, *where, order=shares.c.stored_ms)


def owned_shares(tx: Connection, owner: str) -> list[ShareRow]:
    return all_shares(tx, shares.c.owner == owner)


def shares_of_listing(tx: Connection, listing: str) -> list[ShareRow]:
    return all_shares(tx, shares.c.listing == listing)


def newest_version(tx: Connection, share_id: str, owner: str) -> int:
    """The newest version of ``owner``'s share; 0 when there is none."""
    query = select(func.max(shares.c.version)).where(shares.c.share == share_id, shares.c.owner == owner)
    return int(tx.execute(query).scalar() or 0)


def add_share(tx: Connection, row: ShareRow) -> None:
    """A version that is not there yet; a second one under its number is an error."""
    tx.execute(insert(shares).values(**asdict(row)))


def put_share(tx: Connection, row: ShareRow) -> None:
    write(tx, shares, row)


def grant(tx: Connection, grant_id: str, *, owner: str) -> GrantRow | None:
    found = read_by(tx, grants, GrantRow, owner=owner, grant=grant_id)
    return found[0] if found else None


def grants_of(tx: Connection, share_id: str, version: int, *, owner: str) -> list[GrantRow]:
    return read_by(tx, grants, GrantRow, owner=owner, share=share_id, version=version)


def grants_owned(tx: Connection, owner: str) -> list[GrantRow]:
    return read_by(tx, grants, GrantRow, owner=owner)


def grant_offered(tx: Connection, owner: str, offer: str, recipient: str) -> GrantRow | None:
    """The grant of an offer that ``owner`` made to ``recipient``."""
    found = read(tx, grants, GrantRow, grants.c.owner == owner, grants.c.offer == offer, _names(owner, recipient))
    return found[0] if found else None


def grants_foreign(tx: Connection, me: str) -> list[GrantRow]:
    return read(tx, grants, GrantRow, grants.c.owner != me)


def grants_for(tx: Connection, recipient: str, share_id: str, version: int, *, owner: str) -> list[GrantRow]:
    """The grants of ``owner``'s share version that name ``recipient``."""
    of_it = {"of": owner, "to": recipient, "share": share_id, "version": version}
    return rows_of(GrantRow, tx.execute(_FOR, of_it))


def _names(owner: str | BindParameter[str], recipient: str | BindParameter[str]) -> ColumnElement[bool]:
    told = select(grant_recipients.c.grant)
    return grants.c.grant.in_(told.where(grant_recipients.c.owner == owner, grant_recipients.c.recipient == recipient))


_FOR = columns_of(grants, GrantRow).where(
    grants.c.owner == bindparam("of"),
    grants.c.share == bindparam("share"),
    grants.c.version == bindparam("version"),
    _names(bindparam("of"), bindparam("to")),
)
"""Asked at each range request, so built once."""


def restored_grants(tx: Connection, recipient: str, share_id: str, *, owner: str) -> list[GrantRow]:
    """The grants of any version of a share that name ``recipient`` and are older than the backup this database comes from."""
    where = (grants.c.owner == owner, grants.c.share == share_id, grants.c.restored == 1)
    return read(tx, grants, GrantRow, *where, _names(owner, recipient))


def mark_restored(tx: Connection) -> None:
    """This database comes from a backup."""
    tx.execute(update(grants).values(restored=1))


def put_grant(tx: Connection, row: GrantRow, recipients: list[str]) -> None:
    write(tx, grants, row)
    rows = [{"owner": row.owner, "grant": row.grant, "recipient": recipient} for recipient in recipients]
    if rows:
        tx.execute(insert(grant_recipients).on_conflict_do_nothing(), rows)


def recipients(tx: Connection, row: GrantRow) -> list[str]:
    of_it = (grant_recipients.c.owner == row.owner, grant_recipients.c.grant == row.grant)
    return list(tx.execute(select(grant_recipients.c.recipient).where(*of_it)).scalars())
