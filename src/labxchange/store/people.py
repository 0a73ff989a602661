"""Contacts and invitations."""

from __future__ import annotations

from typing import Literal

from msgspec.structs import asdict
from sqlalchemy import Connection, delete, insert, select

from labxchange.identity.card import Card, parse_card
from labxchange.identity.statement import Key
from labxchange.store.damage import reading
from labxchange.store.rows import Row, read, read_by, write
from labxchange.store.tables import contacts, evidence, invitations, witnessed

WITNESSED_KEPT = 256
"""Checkpoints kept of each contact: as many as a proof of growth can be asked from."""


class Contact(Row, frozen=True, kw_only=True):
    """A person and their pinned key. ``card`` is the newest signed card; ``alert`` says what a person must look at; ``trail``
    what their audit trail showed: empty, "restored N", or "rolled-back" or "diverged", which stop all work with them."""

    key: Key
    state: Literal["unverified", "verified", "blocked"]
    name: str
    card: bytes
    seen_address: str = ""
    added_ms: int
    verified_ms: int = 0
    alert: str = ""
    trail: str = ""


class InvitationRow(Row, frozen=True, kw_only=True):
    """An invitation that this node made; ``secret`` is sealed under the store key."""

    id: str
    secret: bytes
    made_for: str
    expires_ms: int
    state: Literal["open", "used"]
    used_by: str = ""
    reused: int = 0


def card_of(row: Contact) -> Card:
    """The newest card of a contact, verified again; raises IntegrityError ``database-damaged``."""
    with reading("The card of a contact"):
        return parse_card(row.card).body


def contact(tx: Connection, key: str) -> Contact | None:
    found = read_by(tx, contacts, Contact, key=key)
    return found[0] if found else None


def all_contacts(tx: Connection) -> list[Contact]:
    return read(tx, contacts, Contact, order=contacts.c.added_ms)


def put_contact(tx: Connection, row: Contact) -> None:
    write(tx, contacts, row)


def invitation(tx: Connection, invitation_id: str) -> InvitationRow | None:
    found = read_by(tx, invitations, InvitationRow, id=invitation_id)
    return found[0] if found else None


def all_invitations(tx: Connection) -> list[InvitationRow]:
    """Those that were made last come first: each is open for the same number of days."""
    return read(tx, invitations, InvitationRow, order=invitations.c.expires_ms.desc())


def put_invitation(tx: Connection, row: InvitationRow) -> None:
    write(tx, invitations, row)


class Witnessed(Row, frozen=True, kw_only=True):
    """A checkpoint of a contact's trail that this node has cosigned."""

    key: str
    epoch: int
    size: int
    note: str


def witnessed_of(tx: Connection, key: str) -> list[Witnessed]:
    """Newest first."""
    return read(tx, witnessed, Witnessed, witnessed.c.key == key, order=(witnessed.c.epoch.desc(), witnessed.c.size.desc()))


def put_witnessed(tx: Connection, row: Witnessed) -> None:
    write(tx, witnessed, row)
    mine = witnessed.c.key == row.key
    older = select(witnessed.c.epoch, witnessed.c.size).where(mine)
    older = older.order_by(witnessed.c.epoch.desc(), witnessed.c.size.desc()).offset(WITNESSED_KEPT)
    for epoch, size in tx.execute(older).all():
        tx.execute(delete(witnessed).where(mine, witnessed.c.epoch == epoch, witnessed.c.size == size))


def forget_witnessed(tx: Connection, key: str, *, now: int) -> None:
    """Start anew with a contact's trail, after a person decided to; what was seen last is kept as evidence."""
    for row in witnessed_of(tx, key)[:1]:
        put_evidence(tx, Evidence(key=key, kind="accepted", utc_ms=now, first=row.note))
    tx.execute(delete(witnessed).where(witnessed.c.key == key))


class Evidence(Row, frozen=True, kw_only=True):
    """Two checkpoints that a contact signed and that contradict each other, as notes; the ``second`` is empty where a person
    decided to start anew after the ``first``."""

    key: str
    kind: Literal["diverged", "rolled-back", "accepted"]
    utc_ms: int
    first: str
    second: str = ""


def evidence_of(tx: Connection, key: str) -> list[Evidence]:
    """Oldest first."""
    return read(tx, evidence, Evidence, evidence.c.key == key, order=evidence.c.id)


def put_evidence(tx: Connection, row: Evidence) -> None:
    tx.execute(insert(evidence).values(**asdict(row)))
