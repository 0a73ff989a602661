"""Contacts and invitations as faces see them: what a person has to know before trusting somebody, the evidence included."""

from __future__ import annotations

from labxchange.identity.fingerprint import fingerprint
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.values import ContactInfo, EvidenceInfo, InvitationInfo
from labxchange.store import people, statements
from labxchange.store.people import Contact


def contact_info(core: Core, row: Contact, *, connected: bool, offers: int) -> ContactInfo:
    """One contact, with what waits for them and what is kept as evidence against their trail."""
    card = people.card_of(row)
    with core.database.begin() as tx:
        waiting = statements.count_posted(tx, row.key)
        evidence = people.evidence_of(tx, row.key)
    return ContactInfo(
        name=row.name,
        organisation=card.organisation,
        role=card.role,
        country=card.country,
        state=row.state,
        key=row.key,
        fingerprint=fingerprint(bytes.fromhex(row.key)),
        addresses=tuple(card.addresses),
        connected=connected,
        waiting=waiting,
        offers=offers,
        alert=row.alert,
        trail=row.trail,
        evidence=tuple(EvidenceInfo(kind=item.kind, utc=item.utc_ms, first=item.first, second=item.second) for item in evidence),
        added=row.added_ms,
        verified=row.verified_ms,
    )


def invitation_infos(core: Core, contacts: Contacts) -> list[InvitationInfo]:
    """Every invitation that was made here, newest first."""
    now = core.clock.now()
    with core.database.begin() as tx:
        rows = people.all_invitations(tx)
    return [
        InvitationInfo(
            id=row.id,
            made_for=row.made_for,
            state="expired" if row.state == "open" and row.expires_ms <= now else row.state,
            expires=row.expires_ms,
            used_by=contacts.name(row.used_by) if row.used_by else "",
            used_by_key=row.used_by,
            reused=row.reused,
        )
        for row in rows
    ]
