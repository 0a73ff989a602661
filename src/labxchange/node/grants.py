"""Grants of one's own shares: issue, extend, revoke, let expire - and "did they get it?" for each recipient.

Every change is a signed statement and an entry with the old and the new value, durable before anybody hears of it; a grant that
ended or changed has its running transfers judged again at once. One grant names one person, so each can be ended alone.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.errors import InputError
from labxchange.identity.statement import Signed, sign
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.values import RecipientStatus
from labxchange.sharing.exchange import Receipt, ReceiptAck, best
from labxchange.sharing.grant import ExtensionRequest, Grant, Revocation, changed
from labxchange.sharing.share import Offer, Withheld
from labxchange.store import shares as rows
from labxchange.store import statements, transfers
from labxchange.store.people import Contact
from labxchange.store.shares import GrantRow, ShareRow


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decides about a share. Times in UTC milliseconds; 0: now, and 30 days from then."""

    title: str = ""
    note: str = ""
    purpose: str = ""
    study: str = ""
    site: str = ""
    category: str = ""
    not_before: int = 0
    not_after: int = 0
    downloads: int = 3
    withheld: tuple[Withheld, ...] = ()


class Grants:
    """Issues and changes grants.

    Args:
        wake: called with a contact's key when something was posted for them.
        judge: called with a grant id when its transfers must be judged again at once.
    """

    def __init__(self, core: Core, contacts: Contacts, *, wake: Callable[[str], None], judge: Callable[[str], None]) -> None:
        self._core = core
        self._contacts = contacts
        self._wake = wake
        self._judge = judge

    def issue(self, tx: Connection, share: ShareRow, person: Contact, terms: Terms, *, start: int, end: int, base: Entry) -> None:
        """Grant a share version to one person and offer it, inside the transaction that makes it; ``base`` names the share."""
        now = self._core.clock.now()
        grant = self._core.sign(
            Grant,
            grant=self._core.random_bytes(16).hex(),
            revision=1,
            share=share.share,
            version=share.version,
            listing=share.listing,
            recipients=[person.key],
            rights=["list", "read"],
            purpose=terms.purpose,
            not_before=start,
            not_after=end,
            downloads=terms.downloads,
        )
        offer = self._core.sign(
            Offer,
            recipient=person.key,
            share=share.share,
            version=share.version,
            listing=share.listing,
            grant=grant.id,
            root="",
        )
        base = replace(base, new="", counterparty=person.key, counterparty_name=person.name, purpose=terms.purpose)
        issued = replace(
            base,
            event=Event.GRANT_ISSUED,
            object_type="grant",
            object_id=grant.body.grant,
            object_digest=grant.id,
            details={"not_before": start, "not_after": end, "downloads": terms.downloads},
        )
        self._core.append(tx, issued)
        self._core.append(tx, replace(base, event=Event.TRANSFER_OFFERED, object_digest=offer.id))
        statements.put(tx, grant, about=grant.body.grant, now=now)
        statements.put(tx, offer, about=share.share, now=now)
        row = GrantRow(
            grant=grant.body.grant,
            owner=self._core.me,
            share=share.share,
            version=share.version,
            statement=grant.id,
            offer=offer.id,
            not_after=end,
        )
        rows.put_grant(tx, row, [person.key])
        for statement_id in (share.statement, share.listing, grant.id, offer.id):
            statements.post(tx, person.key, statement_id)

    def recipients(self, row: GrantRow) -> list[RecipientStatus]:
        """Did they get it? For each recipient of a grant."""
        out = []
        with self._core.database.begin() as tx:
            grant = statements.need(tx, row.statement, Grant).body
            asked = [found.body for found in statements.about(tx, row.grant, ExtensionRequest)]
            for key in rows.recipients(tx, row):
                attempts = [item for item in transfers.outgoing_of(tx, row.grant) if item.peer == key]
                newest = attempts[-1] if attempts else None
                receipts = statements.about(tx, newest.transfer, Receipt) if newest else []
                holds = best(receipts)
                acknowledged = bool(newest and statements.any_about(tx, newest.transfer, ReceiptAck))
                posted = statements.is_posted(tx, key, row.offer)
                out.append(
                    RecipientStatus(
                        name=self._contacts.name(key),
                        key=key,
                        state=_recipient_state(row, grant, holds, newest, offered=not posted, now=self._core.clock.now()),
                        grant=row.grant,
                        revoked=bool(row.revocation),
                        not_before=grant.not_before,
                        not_after=grant.not_after,
                        downloads=grant.downloads,
                        reserved=sum(item.slot == "reserved" for item in attempts),
                        used=sum(item.slot == "used" for item in attempts),
                        transfer=newest.transfer if newest else "",
                        done_bytes=newest.done_bytes if newest else 0,
                        receipt=holds.id if holds else "",
                        findings=holds.body.findings if holds else "",
                        acknowledged=acknowledged,
                        asked_until=row.asked_until,
                        asked_reason=next((item.reason for item in reversed(asked) if item.issuer == key), ""),
                    )
                )
        return out

    # --- changing and ending ------------------------------------------------------------------------------------------
    def _live(self, share: str, version: int, contact: str) -> list[GrantRow]:
        """The grants of a share that were not revoked (version 0: of all versions), of one contact or of all."""
        key = self._contacts.find(contact).key if contact else ""
        with self._core.database.begin() as tx:
            owned = [grant for grant in rows.grants_owned(tx, self._core.me) if grant.share == share and not grant.revocation]
            owned = [grant for grant in owned if version in (0, grant.version)]
            found = [grant for grant in owned if not key or key in rows.recipients(tx, grant)]
        if not found:
            raise InputError("grant-none", "There is no grant here to change.", hint="`labxchange share status` shows them.")
        return found

    def revoke(self, share: str, version: int, *, contact: str, reason: str) -> None:
        """End the grants of a share at once, for one contact or for all; a running transfer is cut.

        Raises:
            InputError: ``contact-unknown``, ``grant-none``, ``statement-invalid``.
        """
        self._core.require()
        for grant in self._live(share, version, contact):
            revocation = self._core.sign(Revocation, grant=grant.grant, reason=reason)
            with self._core.database.begin() as tx:
                recipients = rows.recipients(tx, grant)
            entry = self._grant_entry(Event.GRANT_REVOKED, grant, recipients[0], reason_text=reason, object_digest=revocation.id)
            with self._core.act(entry) as tx:
                statements.put(tx, revocation, about=grant.grant, now=self._core.clock.now())
                rows.put_grant(tx, replace(grant, revocation=revocation.id, ended=1), [])
                for key in recipients:
                    statements.post(tx, key, revocation.id)
            self._judge(grant.grant)
            for key in recipients:
                self._wake(key)
        if not contact:
            self._retract(share, version, reason)
        self._core.notices.publish("share", share)

    def _retract(self, share: str, version: int, reason: str) -> None:
        """Everybody's grant was revoked: the share version itself is over."""
        with self._core.database.begin() as tx:
            versions = [row for row in rows.owned_shares(tx, self._core.me) if row.share == share and version in (0, row.version)]
        for row in versions:
            if row.state != "retracted":
                entry = self._share_entry(Event.SHARE_RETRACTED, row, reason_text=reason)
                with self._core.act(entry) as tx:
                    rows.put_share(tx, replace(row, state="retracted"))

    def _share_entry(self, event: Event, row: ShareRow, **fields: str) -> Entry:
        return Entry(
            event=event,
            object_type="share",
            object_id=f"{row.share}/{row.version}",
            dataset=row.share,
            who=self._core.who(),
            **fields,  # type: ignore[arg-type]
        )

    def extend(self, share: str, version: int, *, contact: str, until: int, reason: str) -> None:
        """Move the end of the grants of a share (version 0: all), for one contact or for all.

        Raises:
            InputError: as ``revoke``; ``grant-end-in-past``; nothing was changed.
        """
        identity, now = self._core.require(), self._core.clock.now()
        changes: list[tuple[GrantRow, Grant, Signed[Grant]]] = []
        for grant in self._live(share, version, contact):
            with self._core.database.begin() as tx:
                old = statements.need(tx, grant.statement, Grant).body
            changes.append((grant, old, sign(changed(old, issued=now, not_after=until), identity)))
        for grant, old, fresh in changes:  # all are allowed, or none is changed
            with self._core.database.begin() as tx:
                recipients = rows.recipients(tx, grant)
            entry = self._grant_entry(
                Event.GRANT_CHANGED,
                grant,
                recipients[0],
                old=f"not_after {old.not_after}",
                new=f"not_after {until}",
                reason_text=reason,
                object_digest=fresh.id,
            )
            with self._core.act(entry) as tx:
                statements.put(tx, fresh, about=grant.grant, now=now)
                rows.put_grant(tx, replace(grant, statement=fresh.id, not_after=until, ended=0, asked_until=0), [])
                for key in recipients:
                    statements.post(tx, key, fresh.id)
            self._judge(grant.grant)
            for key in recipients:
                self._wake(key)
        self._core.notices.publish("share", share)

    def _grant_entry(self, event: Event, grant: GrantRow, recipient: str, **fields: str) -> Entry:
        return Entry(
            event=event,
            object_type="grant",
            object_id=grant.grant,
            dataset=grant.share,
            who=self._core.who(),
            counterparty=recipient,
            counterparty_name=self._contacts.name(recipient),
            **fields,  # type: ignore[arg-type]
        )

    def expire(self) -> None:
        """Write down the grants whose end has come."""
        now = self._core.clock.now()
        with self._core.database.begin() as tx:
            over = [row for row in rows.grants_owned(tx, self._core.me) if not row.ended and row.not_after <= now]
        for row in over:
            with self._core.database.begin() as tx:
                recipients = rows.recipients(tx, row)
            entry = self._grant_entry(Event.GRANT_EXPIRED, row, recipients[0])
            with self._core.act(entry) as tx:
                rows.put_grant(tx, replace(row, ended=1), [])
            self._judge(row.grant)
            self._expire_share(row.share, row.version)
            self._core.notices.publish("share", row.share)

    def _expire_share(self, share: str, version: int) -> None:
        """The last grant of a share version has ended."""
        with self._core.database.begin() as tx:
            live = [row for row in rows.grants_of(tx, share, version, owner=self._core.me) if not row.ended]
            row = rows.share(tx, share, version, owner=self._core.me)
        if row is not None and not live:
            self._core.record(self._share_entry(Event.SHARE_EXPIRED, row))


def _recipient_state(
    row: GrantRow, grant: Grant, receipt: Signed[Receipt] | None, newest: transfers.TransferRow | None, *, offered: bool, now: int
) -> str:
    """One word for a person: did they get it?"""
    if receipt is not None and receipt.body.level == "intact":
        return "verified" if receipt.body.verdict == "match" else "not intact"
    if receipt is not None:
        return receipt.body.level
    if row.revocation:
        return "revoked"
    if now >= grant.not_after:
        return "expired"
    if newest is not None and newest.state in ("running", "waiting", "paused"):
        return "in progress"
    if newest is not None and newest.state == "cut":
        return "cut"
    return "available" if offered else "waiting for them"
